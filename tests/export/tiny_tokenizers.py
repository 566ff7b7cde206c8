"""One small tokenizer of every model that a vocabulary can be pruned of, trained on the same English and Chinese."""

import json
import random
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_STEMS = ["play", "watch", "review", "delight", "disappoint", "arrive", "charge", "superb", "awful", "phone", "screen"]
_ENDINGS = ["", "s", "ed", "ing", "er", "ers", "ly", "ness", "able", "ment"]
_CHINESE = ["这部电影很好看", "手机屏幕坏了", "我非常喜欢", "太失望了", "快递很快", "电池不耐用"]


def corpus(rows: int = 400, seed: int = 0) -> list[str]:
    """Sentences of which pre-training would have many."""
    generator = random.Random(seed)
    words = [stem + ending for stem in _STEMS for ending in _ENDINGS] + _CHINESE
    return [" ".join(generator.choices(words, k=generator.randint(3, 9))) + "." for _ in range(rows)]


def domain_texts(rows: int = 60) -> list[str]:
    """Sentences of a narrower domain."""
    generator = random.Random(1)
    words = [
        "playing",
        "reviews",
        "superbly",
        "awfulness",
        "phones",
        "slower",
        "screen",
        "the",
        "这部电影很好看",
        "👍",
        "!",
    ]
    return [" ".join(generator.choices(words, k=generator.randint(2, 8))) for _ in range(rows)]


def wordpiece() -> dict[str, Any]:
    """BERT's: lower case, Chinese characters apart, a template with numbers, padding."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(64)
    return _as_json(tokenizer)


def roberta() -> dict[str, Any]:
    """RoBERTa's: BPE over bytes, with an added token after the vocabulary."""
    tokenizer = _bytewise(models.BPE(), ["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    )
    tokenizer.add_special_tokens(["<mask>"])
    return _as_json(tokenizer)


def gpt2() -> dict[str, Any]:
    """GPT-2's: its one special token is the last, its merges are text."""
    tokenizer = _bytewise(models.BPE(), [])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    parsed = _as_json(tokenizer)
    parsed["model"]["merges"] = [" ".join(pair) for pair in parsed["model"]["merges"]]
    return parsed


def llama3() -> dict[str, Any]:
    """Llama 3's: BPE over bytes, where a word in the vocabulary is taken whole; steps of post-processing."""
    parsed = _as_json(_bytewise(models.BPE(ignore_merges=True), ["<|begin|>"]))
    whole = "Ġsuperbly"
    parsed["model"]["vocab"].setdefault(whole, len(parsed["model"]["vocab"]))
    tokenizer = Tokenizer.from_str(json.dumps(parsed))
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]),
        ]
    )
    return _as_json(tokenizer)


def llama2() -> dict[str, Any]:
    """Llama 2's: BPE over whole texts, bytes to fall back to, every way to cut a piece a merge."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    _train(trained, trainers.BpeTrainer(vocab_size=600, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    order = ["".join(pair) for pair in learned["merges"]]
    letters = [piece for piece in learned["vocab"] if piece not in set(order)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(order), *letters]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in dict.fromkeys(order)
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = trained.normalizer
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _as_json(tokenizer)


def clip() -> dict[str, Any]:
    """CLIP's: BPE with a mark at the end of a word, and an unknown token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False),
    )
    return _as_json(tokenizer)


def unigram() -> dict[str, Any]:
    """XLM-RoBERTa's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    _train(
        tokenizer,
        trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    return _as_json(tokenizer)


def unigram_with_bytes() -> dict[str, Any]:
    """T5's and Gemma's kind: Unigram that spells what it lacks in bytes."""
    parsed = unigram()
    parsed["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0 - byte / 1000] for byte in range(256)]
    parsed["model"]["byte_fallback"] = True
    for added in parsed["added_tokens"]:
        if added["content"] == "<mask>":
            added["id"] = len(parsed["model"]["vocab"])
    return _as_json(Tokenizer.from_str(json.dumps(parsed)))


def wordlevel() -> dict[str, Any]:
    """Whole words."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _train(tokenizer, trainers.WordLevelTrainer(special_tokens=["<unk>", "<pad>"], show_progress=False))
    return _as_json(tokenizer)


ALL = {
    maker.__name__: maker
    for maker in (wordpiece, roberta, gpt2, llama3, llama2, clip, unigram, unigram_with_bytes, wordlevel)
}


def _bytewise(model: Any, special: list[str]) -> Any:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(
        tokenizer,
        trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def _train(tokenizer: Any, trainer: Any) -> None:
    tokenizer.train_from_iterator(corpus() + domain_texts(), trainer)


def _as_json(tokenizer: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(tokenizer.to_str())
    return parsed
