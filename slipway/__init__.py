"""Slipway: labelled text in; a small, fast, proven and safe inference endpoint out.

What every stage holds on to lives here; the stages are the packages beside it (`training`, `export`, `serving`,
`loadtests`) and pass each other nothing but artifacts.
"""

import os
import sys

# ONNX Runtime ≥ 1.29 reports model names, hashes and usage to its maker from every process that imports
# it. A tool for medical and financial texts doesn't phone home. Set here, before anything can import onnxruntime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO and NNCF report each import if this package is there, which pip brings with them. None makes `import` fail as
# for a package that isn't, and both do without it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
