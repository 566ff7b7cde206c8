"""The bundle's own answers to texts, from nothing but its files: what the endpoint is held to.

In a process of its own (`python -m loadtests.answers BUNDLE TEXTS ANSWERS`), so that neither the model nor its threads
are where requests are timed, and because a library for models and one for gRPC don't always get along in one process.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from slipway.bundle import Bundle
from slipway.errors import LoadTestError

_AT_A_TIME = 2048


@dataclass(frozen=True)
class Answers:
    """Row by row."""

    labels: list[str]
    margins: npt.NDArray[np.float64]
    """Probability of the label minus that of the next one."""


def answers(bundle: Bundle, texts: Sequence[str]) -> Answers:
    """What `bundle` answers to `texts`. Raises `LoadTestError` if it can't answer here."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "texts.parquet", Path(scratch) / "answers.parquet"
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), asked)
        command = [sys.executable, "-P", "-m", "loadtests.answers", str(bundle.path.absolute())]
        packages = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [*command, str(asked), str(answered)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(packages)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            raise LoadTestError(
                f"The bundle {bundle.path} can't answer here ({last}). Give texts with a column 'predicted', or "
                "pip install 'slipway[serve]'."
            )
        table = pq.read_table(answered)
    return Answers(table["predicted"].to_pylist(), table["margin"].to_numpy())


def main() -> None:
    """Answer a file of texts."""
    from slipway.predictor import Predictor

    directory, asked, answered = map(Path, sys.argv[1:])
    bundle = Bundle.open(directory, verify=False)
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"))
    schema = pa.schema([("predicted", pa.string()), ("margin", pa.float64())])
    with pq.ParquetWriter(answered, schema) as writer:
        for batch in pq.ParquetFile(asked).iter_batches(_AT_A_TIME):
            prediction = predictor.predict(batch.column("text").to_pylist())
            margins = _margins(prediction.logits / bundle.spec.temperature)
            writer.write_table(pa.table({"predicted": prediction.labels, "margin": margins}, schema=schema))


def _margins(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    ranked = np.sort(exponents / exponents.sum(axis=1, keepdims=True), axis=1)
    return ranked[:, -1] - ranked[:, -2] if ranked.shape[1] > 1 else ranked[:, -1]


if __name__ == "__main__":
    main()
