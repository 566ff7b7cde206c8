"""What a variant gives, measured on this machine.

Latency is the median over single texts of the dev split, tokenized beforehand, with as many threads as the recipe
says. All variants and the dense PyTorch model take turns text by text, so that a machine that slows down slows all of
them down: speed-ups are ratios of one run, not of two.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.progress import progress

FloatArray = npt.NDArray[np.float32]
Run = Callable[[Mapping[str, npt.NDArray[np.int64]]], Any]


@contextlib.contextmanager
def dense_model(checkpoint: Path, auto_model: str, threads: int) -> Iterator[Run]:
    """The checkpoint in eager PyTorch, fp32, as a function of numpy inputs `[batch, tokens]`.

    PyTorch's thread count is the process's; it is put back at the end, since sums depend on it.
    """
    import torch
    import transformers

    model = getattr(transformers, auto_model).from_pretrained(checkpoint, local_files_only=True).eval()

    def run(inputs: Mapping[str, npt.NDArray[np.int64]]) -> FloatArray:
        with torch.inference_mode():
            logits: FloatArray = model(
                **{name: torch.from_numpy(value) for name, value in inputs.items()}
            ).logits.numpy()
            return logits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield run
    finally:
        torch.set_num_threads(before)


def onnx_model(session: Any) -> Run:
    """An ONNX Runtime session as a function of numpy inputs."""
    names = {value.name for value in session.get_inputs()}

    def run(inputs: Mapping[str, npt.NDArray[np.int64]]) -> FloatArray:
        logits: FloatArray = session.run(["logits"], {name: inputs[name] for name in inputs if name in names})[0]
        return logits

    return run


def interleaved_latencies(
    runs: Mapping[str, Run], inputs: Sequence[Mapping[str, npt.NDArray[np.int64]]], *, warmup: int = 10
) -> dict[str, dict[str, float]]:
    """`{name: {"p50", "p95"}}` in ms over `inputs`, every function on every input, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    with progress("Measuring latency of the variants", len(inputs) + warmup) as advance:
        for number, one in enumerate([*inputs[:warmup], *inputs]):
            for name, run in runs.items():
                started = time.perf_counter()
                run(one)
                if number >= min(warmup, len(inputs)):
                    taken[name].append(time.perf_counter() - started)
            advance()
    return {
        name: {
            "p50": round(float(np.median(values)) * 1e3, 3),
            "p95": round(float(np.percentile(values, 95)) * 1e3, 3),
        }
        for name, values in taken.items()
    }


def spread_by_length(texts: Sequence[str], count: int) -> list[int]:
    """Rows of `count` texts spread evenly over all lengths, the shortest and the longest included."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    if len(order) <= count:
        return order
    return [order[round(step * (len(order) - 1) / (count - 1))] for step in range(count)]
