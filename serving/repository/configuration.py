"""Every `config.pbtxt`, through Triton's own protobuf schema so that a wrong field can't be written.

    fused      NAME                                   text → labels, in one Python model
    ensemble   NAME = NAME_tokenize → NAME_encoder → NAME_decode

The encoder's backend is the one that the bundle's target was measured on: `onnxruntime`, or `openvino`. An int8 file of
one is several times as slow on the other, so it is never moved. Its settings are those of `slipway.engines` as far as
the C++ backends have parameters for them. Switching graph optimizers off by name is not among them: on a production
Triton's CPU, an onnxruntime encoder has its fusions on, which changes its speed and, in the last digits, its logits.
"""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2 as schema

from serving.model.encoder import DISABLED_OPTIMIZERS, MODEL_FILE, ONNXRUNTIME_THREADS, OPENVINO_BF16, OPENVINO_THREADS
from serving.model.settings import Settings
from serving.model.tokenize import FIRST, NEW_TOKENS, SOURCE
from serving.protocol import INPUT, LABEL, LOGITS, MAX_ROWS, SCORE, SCORES, TRUNCATED
from serving.repository import gpu
from serving.repository.batching import dynamic_batching
from serving.repository.plan import ENCODER, RepositorySpec, TargetName
from slipway.bundle import BundleSpec

TOKENIZE, DECODE = "tokenize", "decode"
GPU_FILE = "gpu.onnx"
"""Beside the CPU's `model.onnx` where a bundle has both."""

Tensors = list[dict[str, Any]]


@dataclass(frozen=True)
class Renderer:
    """Writes the configurations of one repository."""

    spec: RepositorySpec
    bundle: BundleSpec

    def fused(self, target: TargetName) -> str:
        """Text to labels in one model."""
        settings = self.spec.settings(self.bundle, target)
        if target == "gpu":
            settings = replace(settings, providers=gpu.execution_providers(self.spec, self.bundle))
        config = self._python(self.spec.model, settings, [_tensor(INPUT, schema.TYPE_STRING, 1)], self._outputs())
        config.dynamic_batching.CopyFrom(self._batching(target))
        config.instance_group.append(self._instances(target, self.spec.instances))
        return _text(config)

    def ensemble(self) -> str:
        """Which step's outputs are which step's inputs; the same for every target."""
        tokens = {name: name for name in (*self.bundle.tokenization.inputs, FIRST, NEW_TOKENS, SOURCE)}
        # The ensemble's own outputs have these names.
        cut, raw = "tokenized_truncated", "encoder_logits"
        step = schema.ModelEnsembling.Step
        steps = [
            step(
                model_name=self.part(TOKENIZE),
                model_version=-1,
                input_map={INPUT: INPUT},
                output_map={**tokens, TRUNCATED: cut},
            ),
            step(
                model_name=self.part(ENCODER),
                model_version=-1,
                input_map={name: name for name in self.bundle.tokenization.inputs},
                output_map={LOGITS: raw},
            ),
            step(
                model_name=self.part(DECODE),
                model_version=-1,
                input_map={LOGITS: raw, TRUNCATED: cut, FIRST: FIRST, NEW_TOKENS: NEW_TOKENS, SOURCE: SOURCE},
                output_map={tensor["name"]: tensor["name"] for tensor in self._outputs()},
            ),
        ]
        return _text(
            schema.ModelConfig(
                name=self.spec.model,
                platform="ensemble",
                max_batch_size=MAX_ROWS,
                input=[_tensor(INPUT, schema.TYPE_STRING, 1)],
                output=self._outputs(),
                ensemble_scheduling=schema.ModelEnsembling(step=steps),
            )
        )

    def tokenize(self, target: TargetName) -> str:
        """Texts to tokens."""
        config = self._python(
            self.part(TOKENIZE),
            self.spec.settings(self.bundle, target),
            [_tensor(INPUT, schema.TYPE_STRING, 1)],
            [*self._tokens(), *self._along()],
        )
        return self._helper(config, target)

    def decode(self, target: TargetName) -> str:
        """Logits to labels."""
        config = self._python(
            self.part(DECODE),
            self.spec.settings(self.bundle, target),
            [_tensor(LOGITS, schema.TYPE_FP32, len(self.bundle.labels)), *self._along()],
            self._outputs(),
        )
        return self._helper(config, target)

    def encoder(self, target: TargetName) -> str:
        """Tokens to logits."""
        model = self.bundle.targets[target]
        config = schema.ModelConfig(
            name=self.part(ENCODER),
            backend=model.engine,
            default_model_filename=self.encoder_file(target),
            max_batch_size=MAX_ROWS,
            input=self._tokens(),
            output=[_tensor(LOGITS, schema.TYPE_FP32, len(self.bundle.labels))],
            instance_group=[self._instances(target, self.spec.instances)],
            dynamic_batching=self._batching(target),
            parameters={name: {"string_value": value} for name, value in self._engine_parameters(target).items()},
        )
        if target == "gpu":
            config.optimization.CopyFrom(gpu.accelerators(schema, self.spec, self.bundle))
            config.model_warmup.append(gpu.warm_up(schema, self.bundle))
        return _text(config)

    def part(self, step: str) -> str:
        """Name of a step's model."""
        return f"{self.spec.model}_{step}"

    def encoder_file(self, target: TargetName) -> str:
        """Name of the encoder's ONNX file for a target."""
        return MODEL_FILE if target == self.spec.target else GPU_FILE

    def _python(self, name: str, settings: Settings, inputs: Tensors, outputs: Tensors) -> Any:
        return schema.ModelConfig(
            name=name,
            backend="python",
            max_batch_size=MAX_ROWS,
            input=inputs,
            output=outputs,
            parameters={key: {"string_value": value} for key, value in settings.parameters().items()},
        )

    def _helper(self, config: Any, target: TargetName) -> str:
        config.dynamic_batching.CopyFrom(self._batching(target))
        group = schema.ModelInstanceGroup(count=self.spec.helpers, kind=schema.ModelInstanceGroup.KIND_CPU)
        config.instance_group.append(group)
        return _text(config)

    def _engine_parameters(self, target: TargetName) -> dict[str, str]:
        model, threads = self.bundle.targets[target], str(self.spec.threads)
        if model.engine == "openvino":
            hint = {OPENVINO_BF16: "YES"} if model.precision_hint == "bf16" else {}
            return {OPENVINO_THREADS: threads, "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", **hint}
        disabled = {DISABLED_OPTIMIZERS: ";".join(model.disabled_optimizers)} if model.disabled_optimizers else {}
        return {ONNXRUNTIME_THREADS: threads, "inter_op_thread_count": "1", "execution_mode": "0", **disabled}

    def _instances(self, target: TargetName, count: int) -> Any:
        if target == "gpu":
            return gpu.instance_group(schema, self.spec)
        return schema.ModelInstanceGroup(count=count, kind=schema.ModelInstanceGroup.KIND_CPU)

    def _batching(self, target: TargetName) -> Any:
        return dynamic_batching(schema, self.spec, target)

    def _outputs(self) -> Tensors:
        labels = len(self.bundle.labels)
        return [
            _tensor(LABEL, schema.TYPE_STRING, -1),
            _tensor(SCORE, schema.TYPE_FP32, -1),
            _tensor(SCORES, schema.TYPE_FP32, labels),
            _tensor(LOGITS, schema.TYPE_FP32, labels),
            _tensor(TRUNCATED, schema.TYPE_BOOL, 1),
        ]

    def _tokens(self) -> Tensors:
        return [_tensor(name, schema.TYPE_INT64, -1) for name in self.bundle.tokenization.inputs]

    def _along(self) -> Tensors:
        """What goes from tokenize to decode beside the tokens."""
        return [
            _tensor(FIRST, schema.TYPE_BOOL, 1),
            _tensor(NEW_TOKENS, schema.TYPE_INT32, 1),
            _tensor(TRUNCATED, schema.TYPE_BOOL, 1),
            _tensor(SOURCE, schema.TYPE_STRING, 1),
        ]


def _tensor(name: str, kind: Any, size: int) -> dict[str, Any]:
    return {"name": name, "data_type": kind, "dims": [size]}


def _text(config: Any) -> str:
    return str(text_format.MessageToString(config))
