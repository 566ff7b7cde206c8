"""A step of the model, loaded from its folder as Triton would load it."""

import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2


def read_config(file: Path) -> Any:
    """A `config.pbtxt`; raises if it is none."""
    return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def load_step(model: Any, folder: Path, config: str = "cpu") -> None:
    """Initialize `model` with the configuration that the server would choose by this name."""
    named = folder / "configs" / f"{config}.pbtxt"
    parsed = read_config(named if named.is_file() else folder / "config.pbtxt")
    model.initialize(
        {
            "model_repository": str(folder),
            "model_version": "1",
            "model_instance_device_id": "0",
            "model_config": json.dumps(json_format.MessageToDict(parsed, preserving_proto_field_name=True)),
        }
    )
