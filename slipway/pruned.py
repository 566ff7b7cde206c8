"""Pruned classifiers: models of their own family whose layers are smaller, as checkpoints that `transformers` loads.

A pruned BERT is a `BertForSequenceClassification` with smaller linears: the same forward pass, state dict, `config` (a
`BertConfig`) and `model_type`, so that whatever works on the family (fine-tuning, distillation, the ONNX exporter)
works on it as it is. Only two things differ: how it is built (the dense model, then cut to the listed sizes) and what
`save_pretrained` writes as `config.json`:

    {"model_type": "slipway-pruned", "family": "bert", "layer_shapes": [{"source": 0, "heads": 4, …}, …],
     "dense": {"num_hidden_layers": 12}, …and everything that the family's own config has…}

Importing this module registers that type with `AutoConfig` and `AutoModelForSequenceClassification`. The
alternatives: a wrapper around an inner model shifts every name in the state dict, and then saving the inner model by
mistake writes a checkpoint that can't be loaded; `auto_map` needs the code beside the weights and `trust_remote_code`,
which runs code of whoever wrote the checkpoint. The price: a checkpoint loads only where slipway is installed, and
building one lays out the dense model first, on the meta device when weights are loaded (no memory), in memory
otherwise.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import transformers

from slipway.anatomy import LayerShape, anatomy_of, check_shapes
from slipway.anatomy.family import Kept
from slipway.anatomy.family import shapes_of as shapes_of_layers
from slipway.errors import ExportError
from slipway.soundness import PRUNED, building_problem, config_problem, library_quiet, weights_problem

# What a config says of the number of layers, and so differs between the pruned model and the dense one.
_CHANGED = ("num_hidden_layers", "layer_types")


class PrunedConfig(transformers.PretrainedConfig):  # type: ignore[misc]
    """The family's config as it is for the pruned model, and what it takes to build that model.

    Attributes of the family (`hidden_size`, `vocab_size`, `max_position_embeddings`, …) are attributes here, too;
    `num_hidden_layers` is the number of layers left.
    """

    model_type = PRUNED
    has_no_defaults_at_init = True

    def __init__(
        self,
        family: str = "bert",
        layer_shapes: Iterable[dict[str, Any]] = (),
        dense: dict[str, Any] | None = None,
        **values: Any,
    ) -> None:
        if family not in transformers.CONFIG_MAPPING:
            raise ExportError(
                f"the pruned model's config names the family {family!r}, which transformers doesn't know."
            )
        # DistilBERT and GPT-2 call their sizes by other names, and translate.
        self.attribute_map = dict(transformers.CONFIG_MAPPING[family].attribute_map)
        self.family = family
        try:
            self.layer_shapes = [dict(shape) for shape in layer_shapes]
            self.dense = dict(dense or {})
        except (TypeError, ValueError) as error:
            raise ExportError(
                f"the pruned model's config has layer_shapes or dense that can't be read: {error}."
            ) from error
        super().__init__(**values)

    def to_dict(self) -> dict[str, Any]:
        """All values, for `config.json`."""
        values: dict[str, Any] = super().to_dict()
        del values["attribute_map"]
        return values

    def shapes(self) -> tuple[LayerShape, ...]:
        """The sizes of the layers. Raises `ExportError` if they are not written as they should be."""
        try:
            return tuple(
                LayerShape(**{**shape, "head_sources": tuple(shape.get("head_sources", ()))})
                for shape in self.layer_shapes
            )
        except TypeError as error:
            raise ExportError(f"the pruned model's config has layer_shapes that can't be read: {error}.") from error

    def dense_config(self) -> Any:
        """The family's config with the dense model's number of layers."""
        own = {"model_type", "family", "layer_shapes", "dense", "architectures", "transformers_version"}
        values = {name: value for name, value in self.to_dict().items() if name not in own}
        dense = {self.attribute_map.get(name, name): value for name, value in self.dense.items()}
        config = transformers.CONFIG_MAPPING[self.family](**{**values, **dense})
        config._attn_implementation = self._attn_implementation
        return config


class PrunedForSequenceClassification(transformers.PreTrainedModel):  # type: ignore[misc]
    """What makes a family's classifier a pruned one; `pruned_class` joins the two."""

    config_class = PrunedConfig
    shapes: tuple[LayerShape, ...]
    """What is left of each layer."""
    dense_shapes: tuple[LayerShape, ...]
    """The layers of the dense model."""
    dense_values: dict[str, Any]
    """What the dense model's config said of its number of layers."""

    def __init__(self, config: Any, shapes: Sequence[LayerShape] = ()) -> None:
        super().__init__(config)
        family = anatomy_of(self)
        self.dense_shapes = shapes_of_layers(family.layers(self))
        self.dense_values = _values(config)
        self.shapes = tuple(shapes)
        check_shapes(self.shapes, self.dense_shapes)
        family.keep(
            self,
            [
                Kept(
                    position=shape.source,
                    heads=shape.head_sources or range(shape.heads),
                    neurons=range(shape.neurons),
                    repeats=shape.repeats,
                )
                for shape in self.shapes
            ],
        )

    @classmethod
    def from_pretrained(
        cls, path: Any, *_: Any, config: Any = None, output_loading_info: bool = False, **options: Any
    ) -> Any:
        """Load a pruned checkpoint; see `transformers.PreTrainedModel.from_pretrained`.

        Only the classification head may be new. Raises `ExportError` if sizes in the config are impossible, or
        tensors of the encoder are missing or of other sizes than it says.
        """
        config = PrunedConfig.from_pretrained(path) if config is None else config
        build = _class_of(config)
        model, info = super(PrunedForSequenceClassification, build).from_pretrained(
            path, config.shapes(), config=config.dense_config(), output_loading_info=True, **options
        )
        encoder = f"{build.base_model_prefix}."
        lost = sorted(name for name in {*info["missing_keys"], *info["mismatched_keys"]} if name.startswith(encoder))
        if lost:
            raise ExportError(
                f"{path}: {len(lost)} tensors of the pruned model are missing or not of the size that config.json "
                f"says, the first is {lost[0]}; the checkpoint is damaged."
            )
        return (model, info) if output_loading_info else model

    @classmethod
    def _from_config(cls, config: Any, **options: Any) -> Any:
        """A model of these sizes with random weights, for `AutoModelForSequenceClassification.from_config`."""
        build = _class_of(config)
        return super(PrunedForSequenceClassification, build)._from_config(
            config.dense_config(), shapes=config.shapes(), **options
        )

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """Write a checkpoint from which `from_pretrained` builds the same model again."""
        config = self.config  # type: ignore[has-type]
        self.config = self.pruned_config()
        try:
            super().save_pretrained(save_directory, *arguments, **options)
        finally:
            self.config = config

    def pruned_config(self) -> PrunedConfig:
        """What is written as `config.json`, the family's values as they are now."""
        values = self.config.to_dict()
        for name in ("model_type", "transformers_version"):
            values.pop(name, None)
        return PrunedConfig(
            family=self.config.model_type,
            layer_shapes=[_as_written(shape) for shape in self.shapes],
            dense=self.dense_values,
            **values,
        )


def pruned_class(family_class: Any) -> Any:
    """The class of pruned models of `family_class`, a classifier of transformers (or a pruned class itself)."""
    return family_class if issubclass(family_class, PrunedForSequenceClassification) else _joined(family_class)


@functools.cache
def _joined(family_class: Any) -> Any:
    return type(
        f"Pruned{family_class.__name__}",
        (PrunedForSequenceClassification, family_class),
        # transformers looks into the module of a class for the attention it can do.
        {"config_class": family_class.config_class, "__module__": family_class.__module__},
    )


def shapes_of(model: Any) -> tuple[LayerShape, ...]:
    """What is left of each layer of a classifier; all of it if it is dense."""
    if isinstance(model, PrunedForSequenceClassification):
        return model.shapes
    return shapes_of_layers(anatomy_of(model).layers(model))


def dense_shapes_of(model: Any) -> tuple[LayerShape, ...]:
    """The layers of the dense model that a classifier was cut from."""
    return model.dense_shapes if isinstance(model, PrunedForSequenceClassification) else shapes_of(model)


def cut(model: Any, kept: Sequence[Kept]) -> Any:
    """A new model with only `kept` of `model`'s layers, heads and neurons; `model` stays as it is.

    Memory: the weights of `model` once more. Raises `ExportError` if something would go that this family needs.
    """
    family = anatomy_of(model)
    before, dense = shapes_of(model), dense_shapes_of(model)
    values = model.dense_values if isinstance(model, PrunedForSequenceClassification) else _values(model.config)
    shapes = tuple(_cut_shape(before[one.position], dense, one) for one in kept)
    check_shapes(shapes, dense)
    _check_family(model, kept, shapes)
    smaller = copy.deepcopy(model)
    family.keep(smaller, kept)
    # The layers stay the very modules that they were, in what they know from construction, too.
    smaller.__class__ = pruned_class(model.__class__)
    smaller.dense_shapes, smaller.dense_values, smaller.shapes = dense, values, shapes
    return smaller


def load_classifier(path: Path) -> Any:
    """A classifier from a checkpoint folder, dense or pruned: fp32, eager attention, not training.

    What is returned is a model of its family either way: `model.config.model_type` is `bert`, and so on.
    Raises `ExportError` if it can't be loaded, isn't whole, has weights of another model, or such that are not finite.
    """
    import torch

    problem = config_problem(path)
    if problem is not None:
        raise ExportError(f"{path} can't be loaded as a classifier: {problem}.")
    try:
        with library_quiet():
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                path,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation="eager",
                dtype=torch.float32,
                # Only so that sizes which don't fit are reported by name, below.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # of any type: what a config's wrong value first leads to
        raise ExportError(f"{path} can't be loaded as a classifier: {building_problem(error)}.") from error
    lost = [*info["missing_keys"], *info["mismatched_keys"]]
    if lost:
        raise ExportError(f"{path} isn't a whole classifier: its weights have no {min(lost)} of the right size.")
    if info["unexpected_keys"]:
        raise ExportError(
            f"{path} isn't the classifier that its config.json describes: its weights have "
            f"{min(info['unexpected_keys'])}, which such a model doesn't."
        )
    problem = weights_problem(model)
    if problem is not None:
        raise ExportError(f"{path} can't be used: {problem}.")
    return model.eval()


def _class_of(config: Any) -> Any:
    dense = config.dense_config()
    anatomy_of(dense)
    return pruned_class(transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(dense)])


def _values(config: Any) -> dict[str, Any]:
    return {name: copy.copy(getattr(config, name)) for name in _CHANGED if getattr(config, name, None) is not None}


def _as_written(shape: LayerShape) -> dict[str, Any]:
    written: dict[str, Any] = {"source": shape.source, "heads": shape.heads, "neurons": shape.neurons}
    if shape.head_sources:
        written["head_sources"] = list(shape.head_sources)
    if shape.repeats != 1:
        written["repeats"] = shape.repeats
    return written


def _cut_shape(before: LayerShape, dense: Sequence[LayerShape], kept: Kept) -> LayerShape:
    sources = before.head_sources or tuple(range(before.heads))
    heads = tuple(sources[head] for head in kept.heads)
    return dataclasses.replace(
        before,
        heads=len(heads),
        head_sources=() if len(heads) == dense[before.source].heads else heads,
        neurons=len(kept.neurons),
        repeats=kept.repeats,
    )


def _check_family(model: Any, kept: Sequence[Kept], shapes: Sequence[LayerShape]) -> None:
    family = anatomy_of(model)
    layers = family.layers(model)
    missing = family.required_layers(model.config) - {shape.source for shape in shapes}
    if missing:
        raise ExportError(f"layers {sorted(missing)} of this {model.config.model_type} model can't be taken out.")
    if len({shape.repeats for shape in shapes}) > 1:
        raise ExportError(f"all layers of this {model.config.model_type} model have to run equally often.")
    for one, shape in zip(kept, shapes, strict=True):
        for units, number in ((layers[one.position].heads, shape.heads), (layers[one.position].neurons, shape.neurons)):
            if units.fixed and number < units.count:
                raise ExportError(f"layer {shape.source} can't be cut, because {units.fixed}.")


transformers.AutoConfig.register(PRUNED, PrunedConfig)
transformers.AutoModelForSequenceClassification.register(PrunedConfig, PrunedForSequenceClassification)
