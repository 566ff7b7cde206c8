"""Which tokens stay, and the tokenizer that has only those."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.vocabulary.characters import CharacterRule, Characters, is_bytewise
from export.vocabulary.numbering import referred_tokens, renumber
from export.vocabulary.piece_models import PIECE_MODELS
from export.vocabulary.tokenizer_files import read_tokenizer
from slipway.errors import ExportError

IntArray = npt.NDArray[np.int64]

_CHUNK = 1000
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_OTHER_FILES = ("special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class VocabularyPlan:
    """A smaller vocabulary: new token `n` is the old token `kept[n]`."""

    tokenizer: dict[str, Any]
    """The new tokenizer.json."""
    kept: IntArray
    """`[new tokens]`: old numbers by new number, ascending."""
    tokens_before: int

    @property
    def share(self) -> float:
        """Kept tokens among all."""
        return len(self.kept) / self.tokens_before

    def new_number(self, old: int) -> int | None:
        """The new number of old token `old`; None if it was dropped or never was."""
        place = int(np.searchsorted(self.kept, old))
        return place if place < len(self.kept) and self.kept[place] == old else None

    def to_json(self) -> str:
        """The text of the new tokenizer.json."""
        return json.dumps(self.tokenizer, ensure_ascii=False)

    def renumber_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A model's config.json with the new `vocab_size` and the new number in every `*_token_id`.

        A token that is gone, or never was (GPT-2's defaults name 50256 whatever the vocabulary), becomes None.
        Raises `ExportError` if it is the padding token, on which masks and a decoder's last row depend.
        """
        new: dict[str, Any] = {**config, "vocab_size": len(self.kept)}
        for key, old in config.items():
            if not key.endswith("_token_id") or old is None:
                continue
            new[key] = [self.new_number(one) for one in old] if isinstance(old, list) else self.new_number(old)
            if key == "pad_token_id" and new[key] is None and old >= 0:
                raise ExportError(
                    f"the padding token (number {old}) would be pruned; name it in `keep`, or export without "
                    "vocabulary pruning."
                )
        return new

    def save_tokenizer(self, source: Path, out: Path) -> None:
        """Write the new tokenizer files into `out`, taking what has no numbers from the old ones in `source`.

        Vocabulary files of slow tokenizers (vocab.txt, merges.txt, a sentencepiece model) are left behind: they would
        say what is no longer true.
        """
        out.mkdir(parents=True, exist_ok=True)
        (out / _TOKENIZER).write_text(self.to_json(), encoding="utf-8")
        for name in _OTHER_FILES:
            if (source / name).is_file():
                (out / name).write_bytes((source / name).read_bytes())
        if (source / _TOKENIZER_CONFIG).is_file():
            config = json.loads((source / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
            added = config.get("added_tokens_decoder")
            if added:
                moved = {self.new_number(int(old)): token for old, token in added.items()}
                config["added_tokens_decoder"] = {str(new): token for new, token in moved.items() if new is not None}
            (out / _TOKENIZER_CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")


def prune_vocabulary(
    tokenizer: Mapping[str, Any] | Path,
    texts: Iterable[str],
    *,
    min_count: int = 1,
    characters: CharacterRule = "all",
    keep: Collection[str] = (),
) -> VocabularyPlan:
    """Keep the tokens that `texts` use at least `min_count` times, and what keeps all other text spelled.

    New numbers follow the order of the old ones. Special and added tokens stay, as does what the post-processor and
    the padding name. Merges come out as pairs, however they were written.

    Args:
        tokenizer: a tokenizer.json, parsed or as a file.
        texts: the training texts, as the model sees them (normalized, not truncated).
        min_count: 1 leaves the tokenization of `texts` as it was; more spells rare tokens by shorter ones.
        characters: which single characters stay, see `characters.py`.
        keep: further tokens to keep, such as a padding token that only the model's config knows.

    Raises `ExportError` if the tokenizer can't be read or is of an unknown type, if there is no text, or if a token
    of `keep` does not exist.
    """
    original, old = read_tokenizer(tokenizer)
    kind = original["model"]["type"]
    if kind not in PIECE_MODELS:
        raise ExportError(f"vocabularies of {kind} can't be pruned; allowed: {', '.join(sorted(PIECE_MODELS))}.")
    if min_count < 1:
        raise ExportError(f"min_count is {min_count}; it must be at least 1.")
    model = PIECE_MODELS[kind](original["model"])
    numbers: dict[str, int] = old.get_vocab(with_added_tokens=True)
    missing = sorted(set(keep) - numbers.keys())
    if missing:
        raise ExportError(f"token {missing[0]!r} is to be kept, but the vocabulary doesn't have it.")

    counts = _count(old, texts, max(numbers.values()) + 1)
    used = {token for token, number in numbers.items() if counts[number]}
    frequent = {token for token in used if counts[numbers[token]] >= min_count}
    letters = Characters(
        characters,
        seen=frozenset(character for token in used & model.pieces for character in model.text(token)),
        tokenizer=old,
        bytewise=is_bytewise(original),
    )
    stay = frequent | model.ancestry(frequent & model.pieces) | model.spelling(letters) | set(keep)
    stay |= set(referred_tokens(original)) | ({model.unknown} if model.unknown is not None else set())
    ordered = sorted(stay & numbers.keys(), key=lambda token: (numbers[token], token))
    renumbered = {token: number for number, token in enumerate(ordered)}
    plan = VocabularyPlan(
        tokenizer=renumber(original, model.cut(renumbered), renumbered),
        kept=np.array([numbers[token] for token in ordered], dtype=np.int64),
        tokens_before=len(numbers),
    )
    _check(plan, renumbered)
    return plan


def _count(tokenizer: Any, texts: Iterable[str], size: int) -> IntArray:
    """How often each token number occurs in `texts`, `[size]`."""
    counts = np.zeros(size, dtype=np.int64)
    rows = iter(texts)
    empty = True
    for chunk in _chunks(rows):
        empty = False
        encodings = tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        counts += np.bincount(np.concatenate(ids), minlength=size)
    if empty:
        raise ExportError("there is no training text to take the vocabulary from.")
    return counts


def _chunks(rows: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _check(plan: VocabularyPlan, numbers: Mapping[str, int]) -> None:
    """The new tokenizer must load and number its tokens as planned; the library numbers added tokens by itself."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(plan.to_json())
    wrong = next((token for token, number in numbers.items() if loaded.token_to_id(token) != number), None)
    if wrong is not None:
        raise ExportError(
            f"token {wrong!r} would get number {loaded.token_to_id(wrong)} instead of {numbers[wrong]}: its "
            "added tokens don't follow its vocabulary; export without vocabulary pruning."
        )
