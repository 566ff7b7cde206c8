"""Fine-tuning learns, repeats, resumes and restores its best weights."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

import training
from slipway.artifacts import Artifact
from slipway.errors import TrainingError
from slipway.recipe import Base, Train, load_recipe
from tests.tiny_base import write_tiny_base, write_tiny_recipe
from training.bases import load_base
from training.finetuning import fine_tune
from training.optimizer import build_optimizer

pytestmark = pytest.mark.integration


def test_it_learns_what_the_words_say(tiny_checkpoint: Artifact) -> None:
    metrics = tiny_checkpoint.json("metrics.json")
    assert metrics["after"]["test"]["accuracy"] > metrics["after"]["test"]["majority_accuracy"] + 0.3
    assert metrics["after"]["test"]["accuracy"] > metrics["before"]["test"]["accuracy"]


def test_the_checkpoint_is_what_transformers_loads(tiny_checkpoint: Artifact) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint.path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint.path, local_files_only=True)
    with torch.inference_mode():
        best = int(model(**tokenizer("很好 lovely film", return_tensors="pt")).logits.argmax())
    assert model.config.id2label[best] == "good"


def test_no_file_of_the_checkpoint_is_a_pickle(tiny_checkpoint: Artifact) -> None:
    assert not [name for name in tiny_checkpoint.manifest.files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_the_stored_logits_are_those_of_the_stored_weights_on_the_stored_rows(
    tiny_checkpoint: Artifact,
) -> None:
    logits = np.load(tiny_checkpoint.path / "logits" / "test.npy")
    rows = pq.read_table(tiny_checkpoint.path / "data" / "test.parquet")
    labels = list(tiny_checkpoint.json("config.json")["id2label"].values())
    right = [labels[best] == label for best, label in zip(logits.argmax(1), rows["label"].to_pylist(), strict=True)]
    assert np.mean(right) == pytest.approx(tiny_checkpoint.json("metrics.json")["after"]["test"]["accuracy"])


def test_a_model_that_learned_nothing_is_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Steps so large that the weights are thrown about until every text gets the same label.
    train = "{epochs: 1, batch_size: 24, learning_rate: 0.9, max_tokens: 32, precision: fp32}"
    training.train(load_recipe(write_tiny_recipe(tmp_path, train=train)), tmp_path / "run" / "checkpoint")
    assert "learned nothing" in capsys.readouterr().err


def test_where_the_last_step_led_is_considered_too(tmp_path: Path) -> None:
    # 14 steps an epoch: not a multiple of the 4 steps between evaluations.
    train = (
        "{epochs: 1, batch_size: 24, learning_rate: 3.0e-3, max_tokens: 32, precision: fp32, evaluations_per_epoch: 4}"
    )
    recipe = load_recipe(write_tiny_recipe(tmp_path, train=train))
    history = training.train(recipe, tmp_path / "run" / "checkpoint").json("history.json")
    assert [entry["step"] for entry in history["evaluations"]] == [4, 8, 12, 14]


def test_the_reference_logits_are_fp32_even_after_training_in_bf16(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recipe = write_tiny_recipe(tmp_path, train="{epochs: 1, batch_size: 16, max_tokens: 32, precision: bf16}")
    checkpoint = training.train(load_recipe(recipe), tmp_path / "run" / "checkpoint")
    assert checkpoint.json("history.json")["precision"] == "bf16"
    texts = pq.read_table(checkpoint.path / "data" / "dev.parquet")["text"].to_pylist()
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(np.load(checkpoint.path / "logits" / "dev.npy"), logits, atol=1e-5)


def test_the_same_seed_gives_the_same_weights(tiny_recipe: Path, tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    again = training.train(load_recipe(tiny_recipe), tmp_path / "checkpoint")
    assert weights_of(again.path).keys() == weights_of(tiny_checkpoint.path).keys()
    for name, values in weights_of(tiny_checkpoint.path).items():
        np.testing.assert_array_equal(weights_of(again.path)[name], values)


def test_a_folder_that_was_moved_is_not_trained_again_and_one_that_changed_is(tmp_path: Path) -> None:
    here, moved = tmp_path / "here", tmp_path / "moved"
    here.mkdir()
    recipe = write_tiny_recipe(here)
    before = training.training_inputs(load_recipe(recipe))
    here.rename(moved)
    assert training.training_inputs(load_recipe(moved / recipe.name)) == before
    with (moved / "reviews.csv").open("a") as table:
        table.write("good,1\n")
    assert training.training_inputs(load_recipe(moved / recipe.name)) != before


def test_the_best_weights_are_restored_after_stopping_early(tmp_path: Path) -> None:
    # A rate that is far too high from the first step on: later evaluations are no better than earlier ones.
    recipe = write_tiny_recipe(
        tmp_path,
        train="{epochs: 40, batch_size: 16, learning_rate: 5.0e-3, patience: 2, max_tokens: 32, precision: fp32}",
    )
    checkpoint = training.train(load_recipe(recipe), tmp_path / "run" / "checkpoint")
    history = checkpoint.json("history.json")
    best = next(entry for entry in history["evaluations"] if entry["step"] == history["best_step"])
    assert history["stopped_early"]
    assert best["macro_f1"] == max(entry["macro_f1"] for entry in history["evaluations"])
    assert checkpoint.json("metrics.json")["after"]["dev"]["macro_f1"] == pytest.approx(best["macro_f1"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_training_goes_on_where_it_was_stopped(
    tiny_recipe: Path, tiny_checkpoint: Artifact, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "checkpoint"
    command = [sys.executable, "-m", "slipway", "train", str(tiny_recipe), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as stopped:
        assert stopped.stderr is not None
        for line in stopped.stderr:
            if "step " in line:  # the first evaluation, after which a checkpoint is written
                break
        if number == signal.SIGKILL:
            while not list(tmp_path.glob(".checkpoint.resume-*/checkpoint-*/slipway-complete")):
                assert stopped.poll() is None
                os.sched_yield()
        stopped.send_signal(number)
        rest = stopped.stderr.read()
    assert stopped.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), rest
    assert not out.exists()

    resumed = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    assert "Resuming fine-tuning from step" in resumed.stderr
    assert json.loads((out / "history.json").read_text())["resumed_from"] > 0
    for name, values in weights_of(tiny_checkpoint.path).items():
        np.testing.assert_allclose(weights_of(out)[name], values, atol=1e-5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_weight_decay_is_for_matrices_only_and_the_head_has_its_own_rate(tmp_path: Path) -> None:
    base = load_base(
        Base(model=f"file:{write_tiny_base(tmp_path / 'base')}"),
        "sequence-classification",
        ["a", "b"],
        32,
        seed=0,
    )
    section = Train(learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.1)
    groups = build_optimizer(base.model, section).param_groups
    names = {id(parameter): name for name, parameter in base.model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert group["weight_decay"] == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1), name
            assert group["lr"] == (1e-3 if name.startswith("classifier") else 1e-4), name
    assert not names, "a parameter is in no group"


def test_frozen_embeddings_stay_those_of_the_base(tmp_path: Path) -> None:
    train = (
        "{epochs: 1, batch_size: 16, learning_rate: 3.0e-3, max_tokens: 32, precision: fp32, freeze_embeddings: true}"
    )
    recipe = write_tiny_recipe(tmp_path, train=train)
    after = weights_of(training.train(load_recipe(recipe), tmp_path / "run" / "checkpoint").path)
    before = load_file(tmp_path / "base" / "model.safetensors")
    np.testing.assert_array_equal(
        after["bert.embeddings.word_embeddings.weight"], before["embeddings.word_embeddings.weight"]
    )
    layer = "encoder.layer.0.output.dense.weight"
    assert not np.array_equal(after[f"bert.{layer}"], before[layer])


def test_a_tokenizer_may_give_more_than_the_model_takes(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    recipe = load_recipe(write_tiny_recipe(tmp_path))
    folder = Path(recipe.base.model.removeprefix("file:"))
    words = json.loads((folder / "config.json").read_text())["vocab_size"]
    DistilBertModel(DistilBertConfig(vocab_size=words, dim=32, hidden_dim=64, n_layers=1, n_heads=2)).save_pretrained(
        folder
    )
    base = load_base(recipe.base, "sequence-classification", ["a", "b"], 32, seed=0)
    assert base.tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_token_types_are_not_given_to_a_model_that_would_look_them_up_among_its_words(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    recipe = load_recipe(write_tiny_recipe(tmp_path))
    folder = Path(recipe.base.model.removeprefix("file:"))
    words = json.loads((folder / "config.json").read_text())["vocab_size"]
    GPT2Model(GPT2Config(vocab_size=words, n_embd=32, n_layer=1, n_head=2, n_positions=64)).save_pretrained(folder)
    base = load_base(recipe.base, "sequence-classification", ["a", "b"], 32, seed=0)
    assert base.tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_texts_are_cut_at_the_end_as_a_server_cuts_them_whatever_the_base_says(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    settings = folder / "tokenizer_config.json"
    said = json.loads(settings.read_text(encoding="utf-8")) | {"truncation_side": "left", "padding_side": "left"}
    settings.write_text(json.dumps(said), encoding="utf-8")
    tokenizer = load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b"], 32, seed=0).tokenizer
    short, long = tokenizer(["good film", "good film " * 20], truncation=True, max_length=8, padding=True)["input_ids"]
    assert long[:3] == short[:3]
    assert short[-1] == tokenizer.pad_token_id


def test_more_tokens_than_the_base_takes_are_refused(tmp_path: Path) -> None:
    base = Base(model=f"file:{write_tiny_base(tmp_path / 'base', max_positions=64)}")
    with pytest.raises(TrainingError, match=r"max_tokens is 128.* at most 64"):
        load_base(base, "sequence-classification", ["a", "b"], 128, seed=0)


def test_a_base_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(TrainingError, match="no safetensors"):
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b"], 32, seed=0)


def changed_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_tokenizer_with_a_token_that_the_base_has_no_embedding_of_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    changed_tokenizer(folder, lambda content: content["model"]["vocab"].update(rare=900))
    with pytest.raises(TrainingError, match=r"token 'rare' with the number 900, but the model has \d+ embeddings"):
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b"], 32, seed=0)


def test_a_tokenizer_that_takes_no_unknown_words_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")

    def without_unknown(content: dict[str, Any]) -> None:
        content["model"].update(unk_token="[GONE]")  # no secret

    changed_tokenizer(folder, without_unknown)
    with pytest.raises(TrainingError, match="can't take words that it doesn't know"):
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b"], 32, seed=0)


def changed_config(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(content | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "t5"}, "'t5', an encoder with a decoder; allowed are"),
        ({"model_type": "frobnicate"}, "which transformers .* doesn't know"),
        ({"model_type": "vit"}, "don't classify texts"),
        ({"model_type": "gpt2"}, "don't belong together"),
        ({"num_hidden_layers": 3}, r"16 of the 53 tensors .* the first is bert\.encoder\.layer\.2\."),
        ({"vocab_size": 500}, r"1 of the 37 tensors .*word_embeddings"),
        ({"num_attention_heads": 0}, "no model can be built with"),
        ({"layer_norm_eps": "small"}, "can't answer a text"),
        ({"quantization_config": {"quant_method": "gptq"}}, "are quantized"),
        ({"is_decoder": True}, "has is_decoder: true, so that no token of this bert"),
    ],
)
def test_a_config_that_fits_no_model_or_not_these_weights_is_refused_in_one_line(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    folder = write_tiny_base(tmp_path / "base")
    changed_config(folder, **values)
    with pytest.raises(TrainingError, match=said) as caught:
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)
    assert "\n" not in str(caught.value)


def test_layers_of_the_weights_that_the_config_leaves_out_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_base(tmp_path / "base")
    load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)
    assert "left out" not in capsys.readouterr().err
    changed_config(folder, num_hidden_layers=1)
    load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)
    assert "its config.json has 1 layers; 1 more in its weights are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"), [("[]", "a list, not an object"), ("null", "null, not"), ("", "not JSON")]
)
def test_a_config_that_is_none_is_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    folder = write_tiny_base(tmp_path / "base")
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(TrainingError, match=said) as caught:
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)
    assert "\n" not in str(caught.value)


def test_a_base_that_lacks_a_tensor_of_its_encoder_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    weights = weights_of(folder)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError, match=r"1 of the 37 tensors .*layer\.1\.output\.dense\.weight"):
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)


def test_a_base_may_lack_a_pooler(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    weights = {name: weight for name, weight in weights_of(folder).items() if not name.startswith("pooler")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)


def test_a_base_that_was_a_regression_learns_classes(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    changed_config(folder, problem_type="regression")
    base = load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b", "c"], 32, seed=0)
    batch = base.tokenizer(["great film", "dull"], return_tensors="pt", padding=True)
    targets = torch.tensor([0, 2])
    answers = base.model(**batch, labels=targets)
    assert torch.equal(answers.loss, torch.nn.functional.cross_entropy(answers.logits, targets))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    weights = weights_of(folder)
    weights["encoder.layer.1.output.dense.bias"][3] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError, match=r"layer\.1\.output\.dense\.bias have values that are not finite"):
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b"], 32, seed=0)


def test_a_base_whose_answers_are_not_finite_is_refused_before_it_is_trained(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path, train="{epochs: 0.5, max_tokens: 32, precision: fp32}"))
    weights = weights_of(tmp_path / "base")
    weights["encoder.layer.1.output.dense.weight"] *= np.float32(1e38)
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError, match=r"answers to test are not finite, before any fine-tuning"):
        training.train(recipe, tmp_path / "checkpoint")
    assert not [each for each in recwarn if issubclass(each.category, RuntimeWarning)]
    assert not (tmp_path / "checkpoint").exists()
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_model_whose_answers_are_not_finite_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path, train="{epochs: 0.5, max_tokens: 32, precision: fp32}"))

    def diverge(base: Any, *arguments: Any, **options: Any) -> Any:
        with torch.no_grad():
            base.model.bert.encoder.layer[0].output.dense.weight.fill_(torch.nan)
        return fine_tune(base, *arguments, **options)

    monkeypatch.setattr("training.checkpoints.fine_tune", diverge)
    with pytest.raises(TrainingError, match=r"not finite.*train\.learning_rate"):
        training.train(recipe, tmp_path / "checkpoint")
    assert not [each for each in recwarn if issubclass(each.category, RuntimeWarning)]
    assert not (tmp_path / "checkpoint").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(TrainingError, match=r"no config\.json"):
        load_base(Base(model=f"file:{tmp_path}"), "sequence-classification", ["a", "b"], 32, seed=0)


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'], ids=["missing", "not JSON", "not a tokenizer"])
def test_a_base_without_a_usable_tokenizer_is_refused_in_one_line(tmp_path: Path, content: str | None) -> None:
    folder = write_tiny_base(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(TrainingError, match="no usable tokenizer") as caught:
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["bad", "good"], 32, seed=0)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_safetensors_inside_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_base(tmp_path / "base")
    (folder / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(TrainingError, match="can't be loaded"):
        load_base(Base(model=f"file:{folder}"), "sequence-classification", ["a", "b"], 32, seed=0)


def weights_of(checkpoint: Path) -> dict[str, np.ndarray]:
    return load_file(checkpoint / "model.safetensors")
