"""Texts to send, each with the label that the endpoint must answer.

They come from the bundle's own `expected.parquet`, or from a file of the user's where a bundle may not carry texts. A
file that has no `predicted` column gets it here, from the bundle's model: that needs onnxruntime and tokenizers, and
reads nothing off the endpoint that is being tested.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from slipway.bundle import EXPECTED, Bundle
from slipway.errors import LoadTestError


@dataclass(frozen=True)
class Texts:
    """Row by row: what is sent and what must come back."""

    sent: list[str]
    expected: list[str]

    def __len__(self) -> int:
        return len(self.sent)


def load_texts(bundle: Bundle, file: Path | None = None) -> Texts:
    """The texts in `file` (Parquet, CSV or JSON lines with a column `text`), or else the bundle's.

    Raises `LoadTestError` that says what is missing and where.
    """
    source = file or bundle.path / EXPECTED
    if file is None and not source.is_file():
        raise LoadTestError(_no_texts(bundle))
    table = _read(source)
    if "text" not in table.column_names:
        raise LoadTestError(f"{source} has no column 'text', only {', '.join(table.column_names) or 'none'}.")
    if table.num_rows == 0:
        raise LoadTestError(f"{source} has no rows." if file else _no_texts(bundle))
    sent = _strings(table, "text", source)
    if "predicted" in table.column_names:
        return Texts(sent, _strings(table, "predicted", source))
    return Texts(sent, _answers(bundle, sent, source))


def _no_texts(bundle: Bundle) -> str:
    return (
        f"The bundle {bundle.path} carries no texts to send. Give a file with a column 'text' (--texts FILE), "
        "or export it again with test_texts above 0."
    )


def _read(source: Path) -> pa.Table:
    readers = {
        ".parquet": pq.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
    }
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise LoadTestError(f"{source} is not a kind of file that texts are read from; allowed: {', '.join(readers)}.")
    try:
        return reader(source)
    except FileNotFoundError:
        raise LoadTestError(f"{source} does not exist.") from None
    except (pa.ArrowException, OSError) as error:
        raise LoadTestError(f"{source} can't be read: {str(error).splitlines()[0]}") from error


def _strings(table: pa.Table, column: str, source: Path) -> list[str]:
    values: list[str] = table.column(column).to_pylist()
    bad = next((row for row, value in enumerate(values) if not isinstance(value, str)), None)
    if bad is not None:
        raise LoadTestError(f"{source}: row {bad + 1} of column {column!r} is {values[bad]!r}, not a string.")
    return values


def _answers(bundle: Bundle, texts: list[str], source: Path) -> list[str]:
    try:
        from slipway.predictor import Predictor

        predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"))
        return predictor.predict(texts).labels
    except ImportError as error:
        raise LoadTestError(
            f"{source} has no column 'predicted', and the bundle can't answer here ({error}). Add the column, or "
            "pip install 'slipway[serve]'."
        ) from error
