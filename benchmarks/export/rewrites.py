"""What each rewrite of the graph gains, on each engine: the time without it over the time with it, all others taken.

    python benchmarks/export/rewrites.py [--rounds 15] [--shapes 1x32 8x32 32x32] [--heads 12] [--neurons 1536]

The model is a BERT of MiniLM's sizes (6 layers x 384) with random weights; `--heads 4 --neurons 460` is one that is
pruned to 30 %. One thread. ONNX Runtime
runs without its SkipLayerNorm and BiasGelu fusions, which are slower than what they replace. Variants take turns of a
few runs (the first of a turn isn't counted); medians over the rounds of the process's CPU time, which with one thread
is the time that it takes on a machine that does nothing else. int8 is dynamic, per channel.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import export_onnx, input_names, quietly
from export.rewrites import REWRITES, rewrite
from slipway.engines import openvino

_ASSUMING = [name for name, chosen in REWRITES.items() if chosen.assumes]
_VOCABULARY = 30522
_RUNS_A_TURN = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shapes", nargs="+", default=["1x32", "8x32", "32x32"])
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--neurons", type=int, default=1536)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        files = write_variants(Path(work), arguments.heads, arguments.neurons)
        measure("ONNX Runtime fp32", files, open_onnxruntime, arguments)
        measure("OpenVINO fp32", files, open_openvino, arguments)
        int8 = {name: quantize(file) for name, file in files.items()}
        measure("ONNX Runtime int8", int8, open_onnxruntime, arguments)


def write_variants(work: Path, heads: int, neurons: int) -> dict[str, Path]:
    import torch
    from torch import nn
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": neurons}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=_VOCABULARY, num_labels=3, attn_implementation="eager", **sizes)
    )
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        attention.num_attention_heads, attention.all_head_size = heads, 32 * heads
        for part in ("query", "key", "value"):
            setattr(attention, part, nn.Linear(384, 32 * heads))
        layer.attention.output.dense = nn.Linear(32 * heads, 384)
    plain = export_onnx(model, "sequence-classification", work / "plain.onnx")
    files = {"plain": plain, "all": work / "all.onnx"}
    rewrite(plain, files["all"], assuming=_ASSUMING)
    for name in REWRITES:
        files[f"without {name}"] = work / f"{name}.onnx"
        kept = [other for other in REWRITES if other != name]
        rewrite(plain, files[f"without {name}"], only=kept, assuming=[other for other in _ASSUMING if other != name])
    return files


def quantize(file: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = file.with_suffix(".int8.onnx")
    options = {"DefaultTensorType": 1, "MatMulConstBOnly": True}
    with quietly():
        quantize_dynamic(file, out, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)
    return out


Run = Callable[[dict[str, Any]], Any]


def open_onnxruntime(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(file), options, disabled_optimizers=["SkipLayerNormFusion", "BiasGeluFusion"]
    )
    return lambda batch: session.run(None, batch)


def open_openvino(file: Path) -> Run:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino.runtime().compile_model(str(file), "CPU", settings).create_infer_request()
    return lambda batch: request.infer(batch, share_inputs=True, share_outputs=True)


def measure(
    title: str, files: dict[str, Path], open_file: Callable[[Path], Run], arguments: argparse.Namespace
) -> None:
    runs = {name: open_file(file) for name, file in files.items()}
    inputs = {name: input_names(file) for name, file in files.items()}
    table: dict[str, dict[str, float]] = {name: {} for name in files}
    for shape in arguments.shapes:
        batch = make_batch(*map(int, shape.split("x")))
        times: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                columns = {column: batch[column] for column in inputs[name]}
                run(columns)
                for _ in range(_RUNS_A_TURN):
                    start = time.process_time()
                    run(columns)
                    times[name].append(time.process_time() - start)
        for name, taken in times.items():
            table[name][shape] = 1000 * statistics.median(taken)
    print_table(title, table, arguments.shapes)


def make_batch(rows: int, tokens: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    ids = generator.integers(1000, _VOCABULARY, size=(rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def print_table(title: str, table: dict[str, dict[str, float]], shapes: list[str]) -> None:
    print(f"\n{title}, 1 thread: ms (ratio to plain | to all)")
    print(f"{'':22}" + "".join(f"{shape:>26}" for shape in shapes))
    for name, row in table.items():
        cells = (
            f"{row[shape]:9.2f} ({table['plain'][shape] / row[shape]:5.3f} | {row[shape] / table['all'][shape]:5.3f})"
            for shape in shapes
        )
        print(f"{name:22}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
