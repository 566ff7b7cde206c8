"""A model that is adapted to quantization loses less when it is quantized, and is an ordinary model afterwards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
import transformers

from export.distillation import Distillation, Teacher, distil, teach
from export.distillation.token_batches import by_budget, tokenize
from export.graph import export_onnx
from export.quantization import static
from export.quantization.qat import Adapted, calibrate, fake_quantized, quantization_aware
from slipway.errors import ExportError
from tests.export.tiny_students import answers, new_student, sure
from tests.tiny_base import BAD, GOOD, PLAIN

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

SETTINGS = Distillation(
    epochs=12, batch_size=16, learning_rate=1e-4, max_tokens=32, precision="fp32", alpha=1.0, evaluations_per_epoch=1
)

Batch = dict[str, npt.NDArray[np.int64]]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(GOOD + BAD + PLAIN, generator.integers(2, 12))) for _ in range(300)]


@pytest.fixture(scope="module")
def model(base: Path, tokenizer: Any, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that tells good from bad, with an outlier that smoothing can't cure: a channel that is always 3 and is
    multiplied by weights a thousand times as large as the others, whose products a bias takes back."""
    made = new_student(base, seed=0)
    good = [sum(word in GOOD for word in text.split()) > sum(word in BAD for word in text.split()) for text in texts]
    settings = replace(SETTINGS, epochs=10, learning_rate=3e-3)
    distil(made, tokenizer, texts, None, sure(good), settings, seed=0, work=tmp_path_factory.mktemp("model"))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in made.bert.encoder.layer:
            norm, dense = layer.attention.output.LayerNorm, layer.intermediate.dense
            norm.weight[5], norm.bias[5] = 0.0, 3.0
            large = torch.randn(64, generator=generator) * 1000
            dense.bias -= 3.0 * (large - dense.weight[:, 5])
            dense.weight[:, 5] = large
    return made


@pytest.fixture(scope="module")
def teacher(model: Any, tokenizer: Any, texts: list[str]) -> Teacher:
    return teach(model, tokenizer, texts, max_tokens=32, precision="fp32")


@pytest.fixture(scope="module")
def calibration(model: Any, tokenizer: Any, texts: list[str]) -> list[Batch]:
    tokens = tokenize(model, tokenizer, texts[:64], 32)
    return [
        {name: tensor.numpy() for name, tensor in tokens.batch(numbers).items()}
        for numbers in by_budget(tokens.lengths, 256)
    ]


@pytest.fixture(scope="module")
def adapted(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    teacher: Teacher,
    calibration: list[Batch],
    tmp_path_factory: pytest.TempPathFactory,
) -> Adapted:
    lesson = Teacher(teacher.logits[:200], {})
    work = tmp_path_factory.mktemp("qat")
    return quantization_aware(model, tokenizer, texts[:200], None, lesson, calibration, SETTINGS, seed=0, work=work)


def error(model: Any, tokenizer: Any, texts: list[str], teacher: Teacher, calibration: list[Batch]) -> float:
    """Mean squared difference of logits from the teacher's, when calibrated and quantized."""
    with fake_quantized(model, calibrate(model, calibration)):
        found = answers(model, tokenizer, texts)
    return float(np.square(found - teacher.logits).mean())


def test_an_adapted_model_loses_less_on_texts_that_it_has_not_seen(
    model: Any, adapted: Adapted, tokenizer: Any, texts: list[str], teacher: Teacher, calibration: list[Batch]
) -> None:
    unseen, expected = texts[200:], Teacher(teacher.logits[200:], {})
    before = error(model, tokenizer, unseen, expected, calibration)
    after = error(adapted.model, tokenizer, unseen, expected, calibration)
    assert before > 0.02 * teacher.logits.var()  # the outlier hurts
    assert after < before / 2


def int8_answers(model: Any, tokenizer: Any, texts: list[str], calibration: list[Batch], folder: Path) -> Any:
    """Logits of the file that the static quantizer makes of `model`, as ONNX Runtime computes them."""
    folder.mkdir()
    plain = export_onnx(model, "sequence-classification", folder / "plain.onnx")
    session = onnxruntime.InferenceSession(str(static.quantize(plain, folder / "int8.onnx", calibration)))
    names = [each.name for each in session.get_inputs()]
    rows = []
    for text in texts:
        encoded = tokenizer([text])
        rows.append(session.run(None, {name: np.array(encoded[name], dtype=np.int64) for name in names})[0][0])
    return np.array(rows)


def test_the_ordinary_quantizer_loses_less_on_an_adapted_model_and_computes_what_was_simulated(
    model: Any,
    adapted: Adapted,
    tokenizer: Any,
    texts: list[str],
    teacher: Teacher,
    calibration: list[Batch],
    tmp_path: Path,
) -> None:
    unseen, expected = texts[200:], teacher.logits[200:]
    before = int8_answers(model, tokenizer, unseen, calibration, tmp_path / "before")
    after = int8_answers(adapted.model, tokenizer, unseen, calibration, tmp_path / "after")
    with fake_quantized(model, calibrate(model, calibration)):
        simulated = answers(model, tokenizer, unseen)
    lost = np.square(before - expected).mean()
    assert np.square(before - simulated).mean() < lost / 20
    assert np.square(after - expected).mean() < lost / 2


def test_the_model_itself_is_left_as_it_was(
    model: Any, adapted: Adapted, tokenizer: Any, texts: list[str], teacher: Teacher
) -> None:
    assert adapted.model is not model
    np.testing.assert_array_equal(answers(model, tokenizer, texts), teacher.logits)


def test_adapted_weights_lie_on_their_grid_so_quantizing_them_again_rounds_nothing(adapted: Adapted) -> None:
    for name in adapted.grids:
        weight = adapted.model.get_submodule(name).weight.detach() * adapted.grids[name].smoothing
        steps = weight / (weight.abs().amax(1, keepdim=True) / 127)
        np.testing.assert_allclose(steps, steps.round(), atol=1e-3)


def test_an_adapted_model_is_saved_and_loaded_like_any_other(
    adapted: Adapted, tokenizer: Any, texts: list[str], tmp_path: Path
) -> None:
    adapted.model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == adapted.model.state_dict().keys()
    one, other = (answers(model, tokenizer, texts[:20]) for model in (loaded, adapted.model))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_all_products_of_the_layers_are_quantized_and_no_other(model: Any, adapted: Adapted) -> None:
    assert len(adapted.grids) == 2 * 6
    assert all(name.startswith("bert.encoder.layer.") for name in adapted.grids)
    assert all(grid.low <= 0 <= grid.high for grid in adapted.grids.values())


def test_modules_that_are_kept_stay_as_they_are(model: Any, calibration: list[Batch]) -> None:
    kept = "bert.encoder.layer.0.output.dense"
    assert calibrate(model, calibration).keys() - calibrate(model, calibration, keep=[kept]).keys() == {kept}
    with pytest.raises(ExportError, match="keep names classifier"):
        calibrate(model, calibration, keep=["classifier"])


def test_while_it_is_quantized_inputs_and_weights_have_few_values(model: Any, calibration: list[Batch]) -> None:
    name = "bert.encoder.layer.1.intermediate.dense"
    seen: list[torch.Tensor] = []
    grids = calibrate(model, calibration)
    before = model.get_submodule(name).weight.clone()
    with fake_quantized(model, grids):
        module = model.get_submodule(name)
        handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(**{key: torch.from_numpy(array) for key, array in calibration[0].items()})
        handle.remove()
        assert max(len(channel.unique()) for channel in module.weight.detach()) <= 255
    assert len(seen[0].unique()) <= 256
    assert grids[name].low - 0.1 <= seen[0].min() <= seen[0].max() <= grids[name].high + 0.1
    assert torch.equal(model.get_submodule(name).weight, before)


def test_products_that_read_the_same_tensor_share_its_smoothing(model: Any, calibration: list[Batch]) -> None:
    grids = calibrate(model, calibration)
    attention = "bert.encoder.layer.0.attention.self"
    assert grids[f"{attention}.query"] is grids[f"{attention}.key"] is grids[f"{attention}.value"]
    assert grids[f"{attention}.query"] is not grids["bert.encoder.layer.1.attention.self.query"]


def test_padding_does_not_widen_a_range(model: Any, tokenizer: Any, texts: list[str]) -> None:
    tokens = tokenize(model, tokenizer, texts[:8], 32)
    alone = [{name: part.numpy() for name, part in tokens.batch(np.array([number])).items()} for number in range(8)]
    together = [{name: part.numpy() for name, part in tokens.batch(np.arange(8)).items()}]
    one, other = calibrate(model, alone), calibrate(model, together)
    for name in one:
        assert (one[name].low, one[name].high) == pytest.approx((other[name].low, other[name].high), rel=1e-3)


def test_gpt2_whose_weights_are_the_other_way_round_is_rounded_per_output(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(
            vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, pad_token_id=0
        )
    ).eval()
    batch = {name: np.asarray(rows) for name, rows in tokenizer(["great film", "dull box"]).items()}
    grids = calibrate(model, [batch])
    with fake_quantized(model, grids, fold=True):
        pass
    smoothing = torch.from_numpy(grids["transformer.h.0.attn.c_attn"].smoothing)
    weight = model.transformer.h[0].attn.c_attn.weight.detach() * smoothing[:, None]
    steps = weight / (weight.abs().amax(0) / 127)
    assert weight.shape == (16, 48)
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)


def test_without_calibration_texts_there_is_a_clear_error(model: Any) -> None:
    with pytest.raises(ExportError, match="no calibration texts"):
        calibrate(model, [])
