"""Memory that a variant adds to a process, measured in a process of its own.

Resident memory after loading, and the highest while batches of 32 × 128 tokens run, both less what the interpreter and
the engine hold before they load a model (a model of one node is loaded first, so that libraries, thread pools and
kernels are there). In the measuring process itself it can't be seen: allocators keep what earlier variants gave back.
The kernel's high-water mark is used, which catches a peak of a microsecond; sampling would not.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.bundle import Target
from slipway.errors import ExportError

Batch = Mapping[str, npt.NDArray[np.int64]]

_RUNS = 3


@dataclass(frozen=True)
class Memory:
    """MB (10⁶ bytes) that were added."""

    resident_mb: float
    """After loading."""
    peak_mb: float
    """The highest while running."""


def session_memory(model: Path, target: Target, batch: Batch) -> Memory:
    """What loading `model` for `target` and running `batch` adds; raises `ExportError` if that fails."""
    return _measure({"model": str(model), "target": target.model_dump(mode="json")}, batch)


def torch_memory(checkpoint: Path, batch: Batch, *, threads: int = 1) -> Memory:
    """The same for the checkpoint in eager PyTorch, fp32."""
    return _measure({"checkpoint": str(checkpoint), "threads": threads}, batch)


def _measure(what: dict[str, Any], batch: Batch) -> Memory:
    with tempfile.TemporaryDirectory(prefix="slipway-memory-") as folder:
        file = Path(folder) / "batch.npz"
        np.savez(file, **batch)
        package = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from export.measurement.memory import measure_here; measure_here()"],
            input=json.dumps({**what, "batch": str(file), "scratch": folder}),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))},
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(f"memory can't be measured: {reason}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def measure_here() -> None:
    """Measure in this process what standard input says and print it; for the process that `_measure` starts."""
    what = json.load(sys.stdin)
    load = _torch(what) if "checkpoint" in what else _session(what)
    with np.load(what["batch"], allow_pickle=False) as arrays:
        batch = dict(arrays)
    before = _status("VmRSS")
    run = load()
    resident = _status("VmRSS")
    # 5 puts the high-water mark down to what is resident now: loading may need more than running does.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(_RUNS):
        run(batch)
    found = Memory(round((resident - before) / 1e6, 2), round((_status("VmHWM") - before) / 1e6, 2))
    print(json.dumps(asdict(found)))


def _session(what: dict[str, Any]) -> Callable[[], Callable[[Batch], Any]]:
    from slipway.engines import open_session

    target = Target.model_validate(what["target"])
    first = open_session(_one_node(Path(what["scratch"])), target)
    first.run({"input_ids": np.ones((1, 2), dtype=np.int64)})
    return lambda: open_session(Path(what["model"]), target).run


def _torch(what: dict[str, Any]) -> Callable[[], Callable[[Batch], Any]]:
    import torch

    from slipway.pruned import load_classifier

    torch.set_num_threads(what["threads"])
    one = torch.nn.Linear(8, 8)
    with torch.inference_mode():
        one(torch.ones(2, 8))

    def load() -> Callable[[Batch], Any]:
        model = load_classifier(Path(what["checkpoint"]))

        def run(batch: Batch) -> None:
            with torch.inference_mode():
                model(**{name: torch.from_numpy(value) for name, value in batch.items()})

        return run

    return load


def _one_node(folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    tokens = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence"])
    node = helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "one", [tokens], [logits])
    file = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def _status(field: str) -> int:
    """Bytes of a field of this process's status (proc(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ExportError(f"this kernel does not report {field}, so memory can't be measured.")
