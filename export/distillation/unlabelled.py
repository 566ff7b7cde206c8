"""Texts of the domain without labels: more for students to learn from, if the recipe has them.

Only their text is used, with what the dense model says of it. Texts that dev or test hold are left out (compared
without case and white space): a student that has seen the answers to dev would be judged by its memory.
"""

from collections.abc import Iterable

import pyarrow as pa

from slipway.assets import Asset, fetch
from slipway.assets.contents import nearest
from slipway.errors import DataError, ExportError
from slipway.progress import say
from slipway.recipe import Export
from slipway.tables import read_table


def unlabelled_texts(section: Export, held_out: Iterable[str]) -> list[str]:
    """The texts of `section.unlabelled` (CSV, JSON lines or Parquet), each once, without those in `held_out`.

    Raises `AssetError` if the table can't be had, `ExportError` if it can't be read or has no text.
    """
    if section.unlabelled is None:
        return []
    asset = fetch(section.unlabelled, sha256=section.unlabelled_sha256, kind="dataset")
    hidden = {_key(text) for text in held_out}
    found = {_key(text): text for text in _texts(asset, section.unlabelled_text)}
    kept = [text for key, text in found.items() if key and key not in hidden]
    if not kept:
        raise ExportError(f"export.unlabelled {section.unlabelled} has no text that is not in dev or test.")
    say(f"Unlabelled texts: {len(kept):,}; {len(found) - len(kept):,} left out, being empty or in dev or test")
    return kept


def _texts(asset: Asset, column: str) -> list[str]:
    texts: list[str] = []
    for file in asset.files:
        try:
            table = read_table(file)
        except DataError as error:
            raise ExportError(f"export.unlabelled: {error}") from error
        if column not in table.column_names:
            raise ExportError(
                f"{file} has no column {column!r} (export.unlabelled_text){nearest(column, table.column_names)}."
            )
        if not pa.types.is_string(table[column].type) and not pa.types.is_large_string(table[column].type):
            raise ExportError(
                f"{file}: column {column!r} (export.unlabelled_text) holds {table[column].type}, not text."
            )
        texts += [text for text in table[column].to_pylist() if text is not None]
    return texts


def _key(text: str) -> str:
    return " ".join(text.casefold().split())
