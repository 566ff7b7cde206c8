"""A pruned vocabulary leaves its training texts as they were and spells every other text with what is left."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from export.vocabulary import VocabularyPlan, coverage, prune_vocabulary, select_embeddings
from slipway.errors import ExportError
from tests.export.tiny_tokenizers import ALL, corpus, domain_texts, gpt2, unigram, wordpiece

pytestmark = pytest.mark.unit

UNKNOWN = {"[UNK]", "<unk>"}
SPELLING = [name for name in ALL if name != "wordlevel"]


class Pair:
    """A tokenizer before and after pruning."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.original = ALL[name]()
        self.plan = prune_vocabulary(self.original, domain_texts())
        self.before = Tokenizer.from_str(json.dumps(self.original))
        self.after = Tokenizer.from_str(self.plan.to_json())
        for tokenizer in (self.before, self.after):
            tokenizer.no_truncation()

    def spelled(self, tokenizer: Any, text: str) -> bytes:
        """What the tokens say, as bytes; marks of words and of their parts are taken off."""
        model = self.original["model"]
        said = b""
        for token in tokenizer.encode(text, add_special_tokens=False).tokens:
            byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token) if model.get("byte_fallback") else None
            plain = token.removeprefix(model.get("continuing_subword_prefix") or "\0")
            plain = plain.removesuffix(model.get("end_of_word_suffix") or "\0")
            said += bytes([int(byte[1], 16)]) if byte else plain.encode()
        return said


@pytest.fixture(scope="module")
def pairs() -> dict[str, Pair]:
    return {name: Pair(name) for name in ALL}


texts = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.one_of(
            st.sampled_from([word for text in corpus(40, seed=3) for word in text.split()]),
            st.sampled_from(
                ["playfulness", "unreviewable", "屏幕", "电池很好", "👍🏽", "naïve", "Москва", "!!", "[MASK]", "##a"]
            ),
            st.text(alphabet=st.characters(max_codepoint=0x9FFF, exclude_categories=["Cs"]), max_size=4),
        ),
        max_size=8,
    ).map(" ".join),
)


@pytest.mark.parametrize("name", ALL)
def test_training_texts_are_tokenized_as_before(pairs: dict[str, Pair], name: str) -> None:
    pair = pairs[name]
    for text in domain_texts():
        before, after = pair.before.encode(text), pair.after.encode(text)
        assert after.tokens == before.tokens
        assert pair.plan.kept[after.ids].tolist() == before.ids
    assert len(pair.plan.kept) < pair.plan.tokens_before


@pytest.mark.parametrize("name", SPELLING)
@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_any_text_that_could_be_spelled_is_still_spelled_the_same(pairs: dict[str, Pair], name: str, text: str) -> None:
    pair = pairs[name]
    if UNKNOWN.isdisjoint(pair.before.encode(text).tokens):
        assert UNKNOWN.isdisjoint(pair.after.encode(text).tokens)
        assert pair.spelled(pair.after, text) == pair.spelled(pair.before, text)


@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_a_vocabulary_of_words_gives_the_same_word_or_the_unknown_one(pairs: dict[str, Pair], text: str) -> None:
    pair = pairs["wordlevel"]
    before, after = pair.before.encode(text).tokens, pair.after.encode(text).tokens
    assert len(before) == len(after)
    assert all(new in {old, "<unk>"} for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_numbers_are_dense_and_in_the_old_order(pairs: dict[str, Pair], name: str) -> None:
    plan, before, after = pairs[name].plan, pairs[name].before, pairs[name].after
    assert (np.diff(plan.kept) > 0).all()
    assert sorted(after.get_vocab().values()) == list(range(len(plan.kept)))
    assert all(plan.kept[number] == before.token_to_id(token) for token, number in after.get_vocab().items())


@pytest.mark.parametrize("name", ALL)
def test_every_added_token_stays_and_is_found_in_a_text(pairs: dict[str, Pair], name: str) -> None:
    for added in pairs[name].original["added_tokens"]:
        assert added["content"] in pairs[name].after.encode(f"screen {added['content']} screen").tokens


def test_template_padding_and_truncation_are_renumbered_with_the_tokens(pairs: dict[str, Pair]) -> None:
    original = wordpiece()
    original["model"]["vocab"] = {
        token: len(original["model"]["vocab"]) - 1 - number for token, number in original["model"]["vocab"].items()
    }  # special tokens last, so that each of their numbers changes
    for added in original["added_tokens"]:
        added["id"] = original["model"]["vocab"][added["content"]]
    for special in original["post_processor"]["special_tokens"].values():
        special["ids"] = [original["model"]["vocab"][special["id"]]]
    original["padding"]["pad_id"] = original["model"]["vocab"]["[PAD]"]
    plan = prune_vocabulary(original, domain_texts())
    after = Tokenizer.from_str(plan.to_json())
    encodings = after.encode_batch(["screen", "playing the phones"])
    assert encodings[0].ids[0] == after.token_to_id("[CLS]") < original["model"]["vocab"]["[CLS]"]
    assert encodings[0].ids[-1] == after.token_to_id("[PAD]")
    assert after.encode("screen", "phones").ids[-1] == after.token_to_id("[SEP]")
    assert plan.tokenizer["truncation"] == original["truncation"]


def test_merges_written_as_text_or_as_pairs_give_the_same_plan() -> None:
    as_text = gpt2()
    as_pairs = {**as_text, "model": as_text["model"] | {"merges": [m.split(" ") for m in as_text["model"]["merges"]]}}
    assert prune_vocabulary(as_text, domain_texts()).tokenizer == prune_vocabulary(as_pairs, domain_texts()).tokenizer


def test_every_kept_merge_can_still_happen(pairs: dict[str, Pair]) -> None:
    for name in ("roberta", "gpt2", "llama2", "llama3", "clip"):
        model = pairs[name].plan.tokenizer["model"]
        reached = {left + right for left, right in model["merges"]}
        assert all({left, right, left + right} <= model["vocab"].keys() for left, right in model["merges"])
        single = {piece for piece in model["vocab"] if len(piece.removesuffix("</w>")) == 1 or piece.startswith("<")}
        assert model["vocab"].keys() - reached - single <= {"Ġsuperbly"}, "a piece that is looked up, never merged"


def test_scores_and_the_unknown_number_of_unigram_follow_their_pieces(pairs: dict[str, Pair]) -> None:
    before, after = pairs["unigram"].original["model"], pairs["unigram"].plan.tokenizer["model"]
    assert after["vocab"][after["unk_id"]][0] == "<unk>"
    assert dict(map(tuple, after["vocab"])).items() <= dict(map(tuple, before["vocab"])).items()
    assert min(score for _, score in after["vocab"]) == min(score for _, score in before["vocab"])


def test_the_price_of_an_unknown_character_stays_that_of_the_lowest_score() -> None:
    scores = {"<unk>": 0, "q": -1, "qbc": -15, "c": -15, "d": -15, "cd": -1, "dd": -30}
    original = json.loads(Tokenizer(models.Unigram([*scores.items()], unk_id=0)).to_str())
    after = Tokenizer.from_str(prune_vocabulary(original, ["qbcd", "cd"]).to_json())
    assert after.encode("qbcd").tokens == ["qbc", "d"], "without `dd`, q + unknown + cd would score higher"


def test_a_chinese_character_that_always_starts_a_word_needs_no_continuing_piece() -> None:
    original = wordpiece()
    for piece in ("漢", "##漢", "ж", "##ж"):
        original["model"]["vocab"][piece] = len(original["model"]["vocab"])
    kept = prune_vocabulary(original, domain_texts()).tokenizer["model"]["vocab"].keys()
    assert {"漢", "ж", "##ж"} <= kept
    assert "##漢" not in kept


def test_a_character_without_a_piece_of_its_own_keeps_the_pieces_that_spell_it() -> None:
    original = wordpiece()
    for piece in ("жук", "ж", "##к"):
        original["model"]["vocab"][piece] = len(original["model"]["vocab"])
    after = Tokenizer.from_str(prune_vocabulary(original, domain_texts()).to_json())
    assert after.encode("жук", add_special_tokens=False).tokens == ["жук"]


def test_letters_of_unseen_scripts_can_be_dropped_and_become_the_unknown_token() -> None:
    original = wordpiece()
    for piece in ("ж", "##ж", "漢", "é", "√"):
        original["model"]["vocab"][piece] = len(original["model"]["vocab"])
    by_script = prune_vocabulary(original, domain_texts(), characters="seen-scripts").tokenizer["model"]["vocab"].keys()
    assert {"漢", "é", "√"} <= by_script
    assert by_script.isdisjoint({"ж", "##ж"})
    seen = prune_vocabulary(original, domain_texts(), characters="seen")
    assert seen.tokenizer["model"]["vocab"].keys().isdisjoint({"ж", "##ж", "漢", "é", "√"})
    after = Tokenizer.from_str(seen.to_json())
    assert after.encode("漢 screen zq", add_special_tokens=False).tokens[:2] == ["[UNK]", "screen"]
    assert set(seen.tokenizer["model"]["vocab"]) >= {"影", "!"}


def test_bytes_stay_whatever_the_rule_for_characters() -> None:
    plan = prune_vocabulary(gpt2(), domain_texts(), characters="seen")
    after = Tokenizer.from_str(plan.to_json())
    assert after.decode(after.encode("Москва 漢 🙈").ids) == "Москва 漢 🙈"


def test_rare_tokens_can_be_spelled_and_coverage_says_what_that_costs() -> None:
    rows = ["screen screen screen", "screen playing"]
    plan = prune_vocabulary(wordpiece(), rows, min_count=2)
    measured = coverage(wordpiece(), plan, rows)
    assert "playing" not in plan.tokenizer["model"]["vocab"]
    assert measured.changed == 0.5
    assert measured.tokens == 2.5
    assert measured.extra_tokens > 0
    assert measured.unknown_before == measured.unknown_after == 0


def test_coverage_of_training_texts_is_complete_and_unknown_words_are_counted() -> None:
    plan = prune_vocabulary(ALL["wordlevel"](), ["screen playing"])
    assert coverage(ALL["wordlevel"](), plan, ["screen playing"]).changed == 0
    lost = coverage(ALL["wordlevel"](), plan, ["screen phones"])
    assert (lost.changed, lost.extra_tokens, lost.unknown_before, lost.unknown_after) == (1, 0, 0, 0.5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"texts": []}, "no training text"),
        ({"min_count": 0}, "min_count is 0"),
        ({"characters": "some"}, "allowed: all, seen-scripts, seen"),
        ({"keep": ["<nope>"]}, "'<nope>' is to be kept"),
        ({"tokenizer": {"model": {"type": "Morse"}}}, "can't be read as a tokenizer.json"),
        ({"tokenizer": Path("nowhere") / "tokenizer.json"}, "can't be read as a tokenizer.json"),
    ],
)
def test_what_can_not_be_pruned_is_said(arguments: dict[str, Any], reason: str) -> None:
    given_arguments = {"tokenizer": wordpiece(), "texts": domain_texts()} | arguments
    with pytest.raises(ExportError, match=reason):
        prune_vocabulary(given_arguments.pop("tokenizer"), given_arguments.pop("texts"), **given_arguments)


def test_config_numbers_follow_and_those_of_no_token_are_cleared(pairs: dict[str, Pair]) -> None:
    plan, before = pairs["roberta"].plan, pairs["roberta"].before
    config = {"vocab_size": 999, "pad_token_id": 1, "mask_token_id": before.token_to_id("<mask>"), "hidden_size": 7}
    config |= {"eos_token_id": [2, 99_999], "bos_token_id": 99_999}
    assert plan.renumber_config(config) == {
        "vocab_size": len(plan.kept),
        "pad_token_id": 1,
        "mask_token_id": len(plan.kept) - 1,
        "hidden_size": 7,
        "eos_token_id": [2, None],
        "bos_token_id": None,
    }
    with pytest.raises(ExportError, match="padding token"):
        plan.renumber_config({"pad_token_id": 99_999})


def test_saved_tokenizer_files_load_with_transformers_and_agree(tmp_path: Path, pairs: dict[str, Pair]) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    pair = pairs["roberta"]
    roles = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    PreTrainedTokenizerFast(tokenizer_object=pair.before, **roles).save_pretrained(tmp_path / "old")
    (tmp_path / "old" / "vocab.txt").write_text("stale", encoding="utf-8")
    pair.plan.save_tokenizer(tmp_path / "old", tmp_path / "new")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert loaded("playing <mask> screen").input_ids == pair.after.encode("playing <mask> screen").ids
    assert len(loaded) == len(pair.plan.kept)
    assert loaded.mask_token_id == len(pair.plan.kept) - 1
    assert not (tmp_path / "new" / "vocab.txt").exists()


def _tiny(family: str, vocabulary: int, **changes: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 80,
        "pad_token_id": 1,
    }
    special = {
        "albert": {"embedding_size": 16},
        "electra": {"embedding_size": 16},
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        "modernbert": {"global_attn_every_n_layers": 2, "reference_compile": False},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 80},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    }
    settings_ = sizes | special.get(family, {}) | changes
    if family in {"gpt2", "distilbert"}:
        settings_ = {
            key: value for key, value in settings_.items() if not key.startswith(("hidden_s", "num_", "inter"))
        }
    config = transformers.AutoConfig.for_model(family, **settings_)
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    return model.eval()


FAMILIES = [
    "bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra", "mpnet", "deberta-v2", "modernbert",
    "gpt2", "llama",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_selected_embeddings_gives_the_same_logits(family: str, pairs: dict[str, Pair]) -> None:
    import torch

    plan, before, after = pairs["roberta"].plan, pairs["roberta"].before, pairs["roberta"].after
    model = _tiny(family, plan.tokens_before + 7)  # models often have more rows than their tokenizer has tokens
    smaller = select_embeddings(model, plan)
    assert smaller.get_input_embeddings().num_embeddings == smaller.config.vocab_size == len(plan.kept)
    assert smaller.config.pad_token_id == 1
    for tokenizer in (before, after):
        tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    logits = []
    for tokenizer, network in ((before, model), (after, smaller)):
        encodings = tokenizer.encode_batch(domain_texts()[:8])
        tokenizer.no_padding()
        batch = {
            "input_ids": torch.tensor([encoding.ids for encoding in encodings]),
            "attention_mask": torch.tensor([encoding.attention_mask for encoding in encodings]),
        }
        with torch.inference_mode():
            logits.append(network(**batch).logits)
    assert torch.allclose(*logits, atol=1e-6)
    assert model.get_input_embeddings().num_embeddings == plan.tokens_before + 7, "the model given is left alone"


def test_a_pruned_model_saves_loads_and_learns(tmp_path: Path, pairs: dict[str, Pair]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    plan = pairs["unigram"].plan
    select_embeddings(_tiny("xlm-roberta", plan.tokens_before), plan).save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[0, 5, 6, 2]])
    loaded(input_ids=ids, labels=torch.tensor([1])).loss.backward()
    gradient = loaded.get_input_embeddings().weight.grad
    assert gradient.shape[0] == len(plan.kept)
    assert gradient[5].abs().sum() > 0


def test_a_model_of_fewer_layers_heads_and_neurons_can_lose_tokens_too(tmp_path: Path, pairs: dict[str, Pair]) -> None:
    import torch

    from slipway.pruned import Kept, cut, load_classifier

    plan = pairs["roberta"].plan
    model = cut(_tiny("roberta", plan.tokens_before), [Kept(position=1, heads=range(1), neurons=range(16))])
    smaller = select_embeddings(model, plan)
    smaller.save_pretrained(tmp_path)
    ids = torch.tensor([[0, 7, 9, 8, 2]])
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(plan.kept)[ids]).logits
        assert torch.allclose(load_classifier(tmp_path)(input_ids=ids).logits, expected, atol=1e-6)


def _moved_padding(tokens: int) -> VocabularyPlan:
    """A plan in which a token before the padding is gone."""
    return VocabularyPlan(tokenizer={}, kept=np.arange(1, tokens), tokens_before=tokens)


def test_positions_that_count_from_the_padding_number_forbid_moving_it() -> None:
    with pytest.raises(ExportError, match=r"counts positions from its padding token's number.* from 1 to 0"):
        select_embeddings(_tiny("roberta", 50), _moved_padding(50))
    moved = select_embeddings(_tiny("bert", 50), _moved_padding(50))
    assert moved.get_input_embeddings().padding_idx == moved.config.pad_token_id == 0


def test_a_model_that_does_not_belong_to_the_tokenizer_or_predicts_tokens_is_refused() -> None:
    import transformers

    with pytest.raises(ExportError, match="only 20 embeddings"):
        select_embeddings(_tiny("bert", 20), _moved_padding(50))
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, pad_token_id=None)
    with pytest.raises(ExportError, match="predicts tokens"):
        select_embeddings(transformers.GPT2LMHeadModel(config), _moved_padding(50))
    with pytest.raises(ExportError, match="would be pruned"):
        select_embeddings(_tiny("bert", 50), VocabularyPlan({}, np.array([0, 2, 3]), 50))


def test_pruning_again_changes_nothing(pairs: dict[str, Pair]) -> None:
    for name in ("wordpiece", "roberta", "unigram"):
        again = prune_vocabulary(pairs[name].plan.tokenizer, domain_texts())
        assert again.tokenizer == pairs[name].plan.tokenizer
    assert prune_vocabulary(unigram(), iter(domain_texts())).kept.tolist() == pairs["unigram"].plan.kept.tolist()
