"""A base checkpoint small enough to fine-tune in seconds: a random BERT with a WordPiece vocabulary of its own.

Its table can be learned: the words of a review say its label. Texts are English and Chinese.
"""

import csv
import random
from pathlib import Path

GOOD = ["great", "lovely", "superb", "delight", "很好", "喜欢"]
BAD = ["awful", "broken", "dull", "waste", "很差", "失望"]
PLAIN = ["the", "film", "phone", "arrived", "today", "with", "a", "box", "and", "charger", "电影", "手机"]


def write_tiny_base(folder: Path, *, max_positions: int = 64) -> Path:
    """Write a 2-layer × 32 BERT with its tokenizer, as `save_pretrained` does."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    characters = sorted({character for word in GOOD + BAD + PLAIN for character in word})
    pieces = [*special, *GOOD, *BAD, *PLAIN, *characters, *(f"##{character}" for character in characters)]
    tokenizer = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_positions,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder


def write_tiny_table(file: Path, rows: int = 400) -> Path:
    """Write a CSV with columns review, stars: each review has more words of its label than of the other."""
    generator = random.Random(0)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "stars"])
        for number in range(rows):
            words, label = (GOOD, "good") if number % 2 else (BAD, "bad")
            text = generator.choices(words, k=generator.randint(1, 3)) + generator.choices(
                PLAIN, k=generator.randint(2, 12)
            )
            generator.shuffle(text)
            writer.writerow([" ".join(text), label])
    return file


def write_tiny_recipe(folder: Path, **sections: str) -> Path:
    """Write base, table and recipe into `folder`; `sections` are lines of YAML that replace those below."""
    write_tiny_base(folder / "base")
    write_tiny_table(folder / "reviews.csv")
    parts = {
        "base": "{model: file:base}",
        "data": "{source: file:reviews.csv, text: review, label: stars}",
        "train": "{epochs: 3, batch_size: 16, learning_rate: 3.0e-3, max_tokens: 32, precision: fp32}",
        "export": "{effort: quantize, budget: 5, min_agreement: 0.9}",
        "loadtest": "{rate: 20, duration_s: 2, warmup_s: 0.5, max_dispatch_lag_ms: 1000, slo: {p99_ms: 5000}}",
    }
    recipe = folder / "tiny.yaml"
    recipe.write_text(
        "name: tiny\n" + "".join(f"{name}: {text}\n" for name, text in (parts | sections).items()),
        encoding="utf-8",
    )
    return recipe
