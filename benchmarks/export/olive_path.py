"""Olive's own path from an fp32 ONNX file of a BERT to int8, run by the interpreter of an environment of its own.

    python -m venv OLIVE
    OLIVE/bin/pip install -r benchmarks/export/olive_requirements.txt
    OLIVE/bin/python benchmarks/export/olive_path.py dynamic|static MODEL OUT HEADS HIDDEN [CALIBRATION.npz]

Passes: `OrtTransformersOptimization` (fusions; in Olive's examples for encoders it comes before quantization), then
`OnnxDynamicQuantization`, or `OnnxStaticQuantization` with what Olive has by default (MinMax, QDQ) on the texts in
CALIBRATION: arrays `NUMBER/INPUT`, int64 `[1, tokens]`. Olive 0.13 wants other packages than Slipway does, so it is not
imported there; `peers.py` calls this file.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    mode, model, out, heads, hidden, *rest = sys.argv[1:]
    from olive.workflows import run

    optimization = {
        "type": "OrtTransformersOptimization",
        "model_type": "bert",
        "num_heads": int(heads),
        "hidden_size": int(hidden),
    }
    quantization: dict[str, Any] = {"type": f"Onnx{mode.capitalize()}Quantization"}
    config: dict[str, Any] = {
        "input_model": {"type": "ONNXModel", "model_path": model},
        "passes": {"fuse": optimization, "quantize": quantization},
        "output_dir": out,
        "cache_dir": f"{out}-cache",
        "log_severity_level": 3,
    }
    if mode == "static":
        register(Path(rest[0]))
        quantization["data_config"] = "calibration"
        config["data_configs"] = [
            {
                "name": "calibration",
                "load_dataset_config": {"type": "calibration_texts"},
                "pre_process_data_config": {"type": "skip_pre_process"},
                "post_process_data_config": {"type": "skip_post_process"},
                "dataloader_config": {"type": "no_auto_batch_dataloader"},
            }
        ]
    run(config)
    (made,) = Path(out).rglob("*.onnx")
    print(made)


def register(file: Path) -> None:
    """Make the texts in `file` known to Olive as a data set: each a batch of its own, as they differ in length."""
    from olive.data.registry import Registry

    @Registry.register_dataset("calibration_texts")
    def calibration_texts(**_: Any) -> list[tuple[dict[str, Any], int]]:
        rows: dict[str, dict[str, Any]] = {}
        with np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                number, _, key = name.partition("/")
                rows.setdefault(number, {})[key] = arrays[name]
        return [(row, 0) for row in rows.values()]


if __name__ == "__main__":
    main()
