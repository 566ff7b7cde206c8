"""A student learns from its teacher, and a run can be repeated, interrupted, shortened and reloaded."""

import copy
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from export.distillation import Distillation, Teacher, distil, teach
from export.distillation.pacing import affordable_steps, rate_at
from export.distillation.teacher import head_row
from export.distillation.token_batches import by_budget, shuffled, tokenize
from slipway.errors import ExportError
from slipway.inputs import taken_by
from tests.export.tiny_students import answers, new_student, sure
from tests.tiny_base import BAD, GOOD, PLAIN

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

SETTINGS = Distillation(
    epochs=2, batch_size=16, learning_rate=3e-3, max_tokens=32, precision="fp32", evaluations_per_epoch=1
)


class Clock:
    """Time that passes by as much as it is told at each look."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 1000.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@pytest.fixture(scope="module")
def reviews() -> tuple[list[str], npt.NDArray[np.int64]]:
    generator = random.Random(0)
    texts, targets = [], []
    for number in range(240):
        words = generator.choices((BAD, GOOD)[number % 2], k=2) + generator.choices(PLAIN, k=generator.randint(1, 9))
        generator.shuffle(words)
        texts.append(" ".join(words))
        targets.append(number % 2)
    return texts, np.array(targets)


@pytest.fixture(scope="module")
def teacher(reviews: tuple[list[str], npt.NDArray[np.int64]]) -> Teacher:
    """One that is sure and right, with states that are different for the two labels."""
    _, targets = reviews
    generator = np.random.default_rng(0)
    states = generator.normal(size=(2, 32)).astype(np.float16)[targets]
    return sure(targets, {5: states})


def same_weights(one: Any, other: Any) -> bool:
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_a_teacher_answers_in_the_order_of_the_texts_and_as_if_each_were_alone(base: Path, tokenizer: Any) -> None:
    model = new_student(base)
    texts = ["great film", "the phone arrived today with a box and charger", "dull", "很好 电影"]
    teacher = teach(model, tokenizer, texts, max_tokens=32, layers=(0, 1), precision="fp32")
    for number, text in enumerate(texts):
        with torch.no_grad():
            output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        np.testing.assert_allclose(teacher.logits[number], output.logits[0], atol=1e-5)
        for layer in (0, 1):
            np.testing.assert_allclose(teacher.states[layer][number], output.hidden_states[layer + 1][0, 0], atol=2e-3)
    assert teacher.states[1].shape == (4, 32)
    assert teacher.states[1].dtype == np.float16


def test_a_teachers_answers_survive_being_written(tmp_path: Path, teacher: Teacher) -> None:
    teacher.write(tmp_path / "answers.safetensors")
    assert Teacher.read(tmp_path / "answers.safetensors").digest() == teacher.digest()


def test_a_file_that_holds_no_answers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.safetensors").write_bytes(b"\x05\x00")
    with pytest.raises(ExportError, match="remove it to ask again"):
        Teacher.read(tmp_path / "answers.safetensors")


def test_answers_that_have_changed_are_refused(tmp_path: Path, teacher: Teacher) -> None:
    file = tmp_path / "answers.safetensors"
    teacher.write(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ExportError, match="not what was written"):
        Teacher.read(file)


@pytest.mark.parametrize(
    ("config", "row"),
    [
        (transformers.BertConfig, "first"),
        (transformers.RobertaConfig, "first"),
        (transformers.MPNetConfig, "first"),
        (transformers.LlamaConfig, "last"),
    ],
)
def test_the_row_that_a_head_reads_is_found_in_every_family(config: Any, row: str) -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(
        config(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            pad_token_id=1,
        )
    )
    assert head_row(model) == row


def test_a_decoders_state_is_that_of_the_last_token_that_is_not_padding(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(
            vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, pad_token_id=0
        )
    ).eval()
    texts = ["great", "the phone arrived today"]
    teacher = teach(model, tokenizer, texts, max_tokens=32, layers=(0,), precision="fp32")
    with torch.no_grad():
        alone = model(**taken_by(model, tokenizer("great", return_tensors="pt")), output_hidden_states=True)
    np.testing.assert_allclose(teacher.states[0][0], alone.hidden_states[1][0, -1], atol=2e-3)
    np.testing.assert_allclose(teacher.logits[0], alone.logits[0], atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 16])
def test_every_text_is_in_one_batch_of_an_epoch(size: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 1001)
    batches = shuffled(lengths, size, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(1001))
    assert max(map(len, batches)) <= size
    budgeted = list(by_budget(lengths, 100))
    assert sorted(np.concatenate(budgeted)) == list(range(1001))
    assert all(len(batch) * lengths[batch].max() <= 100 for batch in budgeted)


def test_batches_of_similar_length_have_next_to_no_padding() -> None:
    lengths = np.random.default_rng(0).geometric(0.04, 5000)
    batches = shuffled(lengths, 32, np.random.default_rng(1))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.15 * lengths.sum()


def test_a_batch_is_what_the_tokenizer_would_pad(base: Path, tokenizer: Any) -> None:
    texts = ["great film", "the phone arrived today", "dull"]
    batch = tokenize(new_student(base), tokenizer, texts, 32).batch(np.array([2, 0, 1]))
    expected = tokenizer([texts[2], texts[0], texts[1]], padding=True, return_tensors="pt")
    assert all(torch.equal(batch[name], expected[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))


def test_a_student_learns_from_logits_alone(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, targets = reviews
    student = new_student(base)
    curve = distil(
        student, tokenizer, texts[:160], None, part(teacher, 160), replace(SETTINGS, epochs=12), seed=0, work=tmp_path
    )
    assert (answers(student, tokenizer, texts[160:]).argmax(1) == targets[160:]).mean() > 0.9
    assert curve.losses[-1][1] < curve.losses[0][1] / 3
    assert curve.steps == curve.planned_steps == 120
    assert not student.training


def part(teacher: Teacher, count: int) -> Teacher:
    return Teacher(teacher.logits[:count], {layer: state[:count] for layer, state in teacher.states.items()})


def test_unlabelled_texts_are_learned_from(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, targets = reviews
    # The few labels say nothing about the other 156 texts; only the teacher does.
    some = [int(target) if number < 4 else None for number, target in enumerate(targets[:160])]
    settings = replace(SETTINGS, epochs=12, alpha=0.0)
    student = new_student(base)
    distil(student, tokenizer, texts[:160], some, part(teacher, 160), settings, seed=0, work=tmp_path)
    assert (answers(student, tokenizer, texts[160:]).argmax(1) == targets[160:]).mean() > 0.9


def test_labels_alone_are_learned_from_when_the_teacher_has_no_weight(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, targets = reviews
    wrong = Teacher(-teacher.logits, {})
    student = new_student(base)
    distil(student, tokenizer, texts, targets, wrong, replace(SETTINGS, epochs=12, alpha=0.0), seed=0, work=tmp_path)
    assert (answers(student, tokenizer, texts).argmax(1) == targets).mean() > 0.9


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_states_come_nearer_to_the_teachers(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path, distance: Any
) -> None:
    texts, _ = reviews
    settings = replace(SETTINGS, epochs=8, layers={1: 5}, state_distance=distance, state_weight=10.0)
    student = new_student(base)

    def similarity() -> float:
        states = teach(student, tokenizer, texts, max_tokens=32, layers=(1,), precision="fp32").states[1]
        pair = torch.from_numpy(states).float(), torch.from_numpy(teacher.states[5]).float()
        return float(torch.cosine_similarity(*pair, dim=1).mean())

    before = similarity()
    distil(student, tokenizer, texts, None, teacher, settings, seed=0, work=tmp_path)
    assert before < 0.3
    assert similarity() > 0.6


def test_states_of_another_width_are_left_out(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    wide = Teacher(teacher.logits, {5: np.zeros((len(texts), 48), np.float16)})
    one, other = new_student(base), new_student(base)
    distil(one, tokenizer, texts, None, wide, replace(SETTINGS, layers={1: 5}), seed=0, work=tmp_path / "one")
    distil(other, tokenizer, texts, None, wide, SETTINGS, seed=0, work=tmp_path / "other")
    assert same_weights(one, other)


def test_dropout_is_as_set_while_learning_and_as_it_was_afterwards(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    for dropout, during in ((0.0, 0.0), (0.3, 0.3), (None, 0.1)):
        student, seen = new_student(base), set()
        rates = [module for module in student.modules() if isinstance(module, torch.nn.Dropout)]
        student.register_forward_hook(lambda *_, seen=seen, rates=rates: seen.update(module.p for module in rates))
        settings = replace(SETTINGS, epochs=0.1, dropout=dropout)
        distil(student, tokenizer, texts, None, teacher, settings, seed=0, work=tmp_path / str(dropout))
        assert seen == {during}
        assert {module.p for module in rates} == {0.1}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, targets = reviews
    students = [new_student(base) for _ in range(3)]
    for number, (student, seed) in enumerate(zip(students, [4, 4, 5], strict=True)):
        torch.manual_seed(number)  # what was drawn before doesn't matter
        distil(student, tokenizer, texts, targets, teacher, SETTINGS, seed=seed, work=tmp_path / str(number))
    assert same_weights(students[0], students[1])
    assert not same_weights(students[0], students[2])


def test_embeddings_stay_as_they_are_unless_told(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    for freeze in (True, False):
        student = new_student(base)
        before = student.get_input_embeddings().weight.clone()
        settings = replace(SETTINGS, epochs=0.2, freeze_embeddings=freeze)
        distil(student, tokenizer, texts, None, teacher, settings, seed=0, work=tmp_path / str(freeze))
        assert torch.equal(before, student.get_input_embeddings().weight) == freeze
        assert student.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("interrupted_at", [1, 15, 22])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path, interrupted_at: int
) -> None:
    texts, targets = reviews
    settings = replace(SETTINGS, dropout=0.1, layers={1: 5})
    straight, stopped = new_student(base), new_student(base)
    expected = distil(straight, tokenizer, texts, targets, teacher, settings, seed=0, work=tmp_path / "straight")
    press_ctrl_c_at(stopped, interrupted_at)
    with pytest.raises(KeyboardInterrupt):
        distil(stopped, tokenizer, texts, targets, teacher, settings, seed=0, work=tmp_path / "stopped")
    again = new_student(base)
    curve = distil(again, tokenizer, texts, targets, teacher, settings, seed=0, work=tmp_path / "stopped")
    assert curve.resumed_from == interrupted_at
    assert curve.losses == expected.losses
    assert same_weights(straight, again)


def press_ctrl_c_at(student: Any, step: int) -> None:
    """Press Ctrl-C in the forward pass of this step, counted from 1."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += student.training
        if calls == step:
            os.kill(os.getpid(), signal.SIGINT)

    student.register_forward_hook(count)


def test_a_finished_run_is_loaded_instead_of_repeated(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, targets = reviews
    one, other = new_student(base), new_student(base)
    curve = distil(one, tokenizer, texts, targets, teacher, SETTINGS, seed=0, work=tmp_path)
    other.register_forward_hook(lambda *_: pytest.fail("it is trained again"))
    assert distil(other, tokenizer, texts, targets, teacher, SETTINGS, seed=0, work=tmp_path) == curve
    assert same_weights(one, other)


def test_the_state_of_another_run_is_not_gone_on_with(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, targets = reviews
    stopped = new_student(base)
    press_ctrl_c_at(stopped, 5)
    with pytest.raises(KeyboardInterrupt):
        distil(stopped, tokenizer, texts, targets, teacher, SETTINGS, seed=0, work=tmp_path)
    changed = Teacher(teacher.logits + 1, {})
    assert (
        distil(new_student(base), tokenizer, texts, targets, changed, SETTINGS, seed=0, work=tmp_path).resumed_from
        is None
    )


def test_the_best_weights_are_kept_even_if_they_are_the_first(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    for best, values in ((0, [3.0, 1.0, 2.0]), (15, [1.0, 3.0, 2.0]), (30, [1.0, 2.0, 3.0])):
        student, seen, said = new_student(base), [], iter(values)

        def evaluate(model: Any, seen: list[Any] = seen, said: Iterator[float] = said) -> float:
            assert not model.training
            seen.append(copy.deepcopy(model))
            return next(said)

        curve = distil(
            student, tokenizer, texts, None, teacher, SETTINGS, seed=0, work=tmp_path / str(best), evaluate=evaluate
        )
        assert curve.best_step == best
        assert curve.evaluations == list(zip([0, 15, 30], values, strict=True))
        assert same_weights(student, seen[best // 15])


def test_a_deadline_shortens_the_run_and_the_learning_rate_falls_all_the_same(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    clock = Clock(tick=1.0)
    deadline = clock.now + 100
    curve = distil(
        new_student(base), tokenizer, texts, None, teacher, replace(SETTINGS, epochs=20),
        seed=0, work=tmp_path, deadline=deadline, clock=clock,
    )  # fmt: skip
    assert 20 < curve.steps < curve.planned_steps == 300
    assert clock.now <= deadline + 5
    assert max(rate for _, _, rate in curve.losses) > SETTINGS.learning_rate / 2
    assert curve.losses[-1][2] < SETTINGS.learning_rate / 10


def test_a_deadline_far_away_changes_nothing(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    one, other = new_student(base), new_student(base)
    distil(one, tokenizer, texts, None, teacher, SETTINGS, seed=0, work=tmp_path / "one")
    distil(
        other, tokenizer, texts, None, teacher, SETTINGS,
        seed=0, work=tmp_path / "other", deadline=1e9, clock=Clock(tick=1.0),
    )  # fmt: skip
    assert same_weights(one, other)


def test_a_deadline_that_has_passed_leaves_the_student_as_it_was(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    student = new_student(base)
    curve = distil(student, tokenizer, texts, None, teacher, SETTINGS, seed=0, work=tmp_path, deadline=0.0)
    assert curve.steps == 0
    assert same_weights(student, new_student(base))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("targets", "rows", "reason"),
    [
        ([0] * 5, 240, "5 labels"),
        (None, 7, "answered to 7 texts"),
        ([0, 1, 2] * 80, 240, "labels 0 to 1"),
    ],
)
def test_what_does_not_fit_together_is_said(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path, targets: Any, rows: int, reason: str
) -> None:
    texts, _ = reviews
    with pytest.raises(ExportError, match=reason):
        distil(new_student(base), tokenizer, texts, targets, part(teacher, rows), SETTINGS, seed=0, work=tmp_path)


def test_a_loss_that_explodes_is_said(
    base: Path, tokenizer: Any, reviews: Any, teacher: Teacher, tmp_path: Path
) -> None:
    texts, _ = reviews
    broken = Teacher(np.full_like(teacher.logits, np.inf), {})
    with pytest.raises(ExportError, match="isn't finite"):
        distil(new_student(base), tokenizer, texts, None, broken, SETTINGS, seed=0, work=tmp_path)


@pytest.mark.unit
def test_the_rate_rises_over_the_warm_up_and_falls_to_nothing() -> None:
    rates = [rate_at(number / 1000, 0.1) for number in range(1001)]
    assert rates[0] == rates[-1] == 0
    assert max(rates) == rates[100] == 1
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rate_at(0.0, 0.0) == 1


@pytest.mark.unit
def test_steps_and_their_evaluations_fit_into_the_time() -> None:
    steps = affordable_steps(100.0, step_s=1.0, evaluation_s=5.0, every=10)
    assert 100 - 5 <= steps * 1.0 + (steps // 10 + 1) * 5.0 <= 100
    assert affordable_steps(4.0, step_s=1.0, evaluation_s=5.0, every=10) == 0
