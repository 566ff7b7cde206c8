"""Texts of the domain without labels: more for students to learn from, if the recipe has them.

Only their text is used, with what the dense model says of it. Texts that dev or test hold are left out (compared
without case and white space): a student that has seen the answers to dev would be judged by its memory.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from slipway.assets import Asset, fetch
from slipway.assets.contents import nearest
from slipway.errors import ExportError
from slipway.progress import say
from slipway.recipe import Export


def _read_csv(file: Path) -> pa.Table:
    # Without this, a text with a line break in it is torn where a block of the file ends.
    return pyarrow.csv.read_csv(file, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))


_READERS = {
    ".csv": _read_csv,
    ".jsonl": pyarrow.json.read_json,
    ".parquet": pq.read_table,
}


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
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            raise ExportError(
                f"{file} is not a kind of table that export.unlabelled takes; allowed: {', '.join(_READERS)}."
            )
        try:
            table = reader(file)
        except (pa.ArrowException, OSError) as error:
            raise ExportError(f"{file} can't be read: {str(error).splitlines()[0]}.") from error
        if column not in table.column_names:
            raise ExportError(
                f"{file} has no column {column!r} (export.unlabelled_text){nearest(column, table.column_names)}."
            )
        if table.column_names.count(column) > 1:
            raise ExportError(f"{file} has {table.column_names.count(column)} columns {column!r}.")
        if reader is _read_csv and pa.types.is_binary(table[column].type):
            raise ExportError(f"{file}: column {column!r} (export.unlabelled_text) is not UTF-8; save it as UTF-8.")
        if not pa.types.is_string(table[column].type) and not pa.types.is_large_string(table[column].type):
            raise ExportError(
                f"{file}: column {column!r} (export.unlabelled_text) holds {table[column].type}, not text."
            )
        texts += [text for text in table[column].to_pylist() if text is not None]
    return texts


def _key(text: str) -> str:
    return " ".join(text.casefold().split())
