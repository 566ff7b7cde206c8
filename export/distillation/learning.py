"""The loop that trains a model for minutes: stepped, evaluated, saved, gone on with, and finished by a deadline.

It is our own, where fine-tuning uses `transformers.Trainer`. Trainer has no distillation loss, so its `compute_loss`,
its collator and its schedule would all be replaced; what is left of it, or of `accelerate`, brings multi-GPU runs that
minutes of training on a small student don't need, and lacks what a search under a time budget does need: a schedule
that ends when the time does. The price is this file.

The same seed and number of threads give the same weights, bit by bit, also when the run was interrupted: the order of
texts depends on seed and epoch alone, and what else a step depends on is in the snapshot. Best weights are kept in
memory and not on disk at every evaluation: a copy of a small student takes 10 ms.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.distillation.autocast import Precision, autocast, resolve
from export.distillation.pacing import affordable_steps, rate_at
from export.distillation.resumption import Snapshot
from export.distillation.token_batches import shuffled
from slipway.errors import ExportError
from slipway.interruption import interruptible
from slipway.progress import progress, say

STATE = "state.safetensors"
RESULT = "result.safetensors"

_REPLAN_STEPS = 10
_UNPACED_STEPS = 3

Loss = Callable[[npt.NDArray[np.int64]], Any]
"""Scalar loss of the texts of these numbers."""


@dataclass(frozen=True)
class Learning:
    """What any run must know: how far, how fast, how often to look."""

    epochs: float = 3.0
    """Passes over the texts; may be a fraction."""
    batch_size: int = 32
    """Texts a step."""
    learning_rate: float = 1e-4
    """At its peak; it rises linearly over the warm-up and falls linearly to 0."""
    warmup: float = 0.1
    """Share of the steps."""
    weight_decay: float = 0.01
    """Of matrices; biases and normalization gains have none."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    freeze_embeddings: bool = True
    """Keep the token embeddings."""
    dropout: float | None = 0.0
    """Share of values that is dropped while learning; None: what the model's configuration says."""
    precision: Precision = "auto"
    """`auto`: bf16 where the processor multiplies it natively."""
    evaluations_per_epoch: int = 2
    """How often `evaluate` is asked, besides before the first and after the last step."""


@dataclass(frozen=True)
class Curve:
    """What happened in a run, step by step.

    losses: step, mean loss since the entry before, learning rate. evaluations: step, what `evaluate` said.
    `steps` is how many were taken of `planned_steps`; fewer if the deadline was near. `seconds` counts all sessions,
    `texts_per_s` is the pace of the steps alone.
    """

    losses: list[tuple[int, float, float]]
    evaluations: list[tuple[int, float]]
    best_step: int
    steps: int
    planned_steps: int
    resumed_from: int | None
    seconds: float
    texts_per_s: float
    precision: str


def learn(
    model: Any,
    loss: Loss,
    lengths: npt.NDArray[np.int64],
    settings: Learning,
    *,
    seed: int,
    work: Path,
    identity: str,
    deadline: float | None,
    evaluate: Callable[[Any], float] | None,
    clock: Callable[[], float] = time.monotonic,
) -> Curve:
    """Train `model` in place, and leave it in eval mode with the best weights.

    Args:
        model: a transformers classifier.
        loss: of a batch; runs under autocast.
        lengths: tokens of each text.
        settings: how.
        seed: of shuffling and dropout.
        work: folder of the run's state.
        identity: fingerprint of everything that the run depends on; a state with another one is not gone on with.
        deadline: in seconds of `clock`; no step starts later.
        evaluate: the higher, the better; None: the last weights are the best.
        clock: what time it is, in seconds.

    Raises `ExportError` if the loss isn't finite, `KeyboardInterrupt` after saving if interrupted.
    """
    import torch

    with _as_set(model, settings):
        finished = Snapshot.read(work / RESULT, identity)
        if finished is not None:
            model.load_state_dict(finished.tensors["weights"], strict=False)
            model.eval()
            return Curve(**_as_written(finished.notes))
        run = _Run(model, loss, lengths, settings, seed, evaluate, clock)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = Snapshot.read(work / STATE, identity)
            if before is not None:
                run.restore(before)
                say(f"Resuming distillation from step {run.step} of {run.planned}")
            run.go(work / STATE, identity, deadline)
        curve = run.finish()
    if curve.steps:
        Snapshot({"weights": run.best}, dataclasses.asdict(curve)).write(work / RESULT, identity)
    (work / STATE).unlink(missing_ok=True)
    return curve


def _as_written(notes: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: give the curves theirs back."""
    return notes | {name: [tuple(entry) for entry in notes[name]] for name in ("losses", "evaluations")}


@contextlib.contextmanager
def _as_set(model: Any, settings: Learning) -> Iterator[None]:
    """Freeze what isn't to learn and set the dropout; leave the model as it was in these respects."""
    import torch

    embeddings = model.get_input_embeddings().weight
    learns = embeddings.requires_grad
    rates = {module: module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    try:
        embeddings.requires_grad_(learns and not settings.freeze_embeddings)
        if settings.dropout is not None:
            for module in rates:
                module.p = settings.dropout
        yield
    finally:
        embeddings.requires_grad_(learns)
        for module, rate in rates.items():
            module.p = rate


class _Run:
    """A run between two steps, and how to take the next one."""

    def __init__(
        self,
        model: Any,
        loss: Loss,
        lengths: npt.NDArray[np.int64],
        settings: Learning,
        seed: int,
        evaluate: Callable[[Any], float] | None,
        clock: Callable[[], float],
    ) -> None:
        import torch

        self.model, self.loss, self.lengths, self.settings = model, loss, lengths, settings
        self.seed, self.evaluate, self.clock = seed, evaluate, clock
        self.device = next(model.parameters()).device
        self.per_epoch = math.ceil(len(lengths) / settings.batch_size)
        self.planned = max(1, math.ceil(self.per_epoch * settings.epochs))
        self.every = max(1, math.ceil(self.per_epoch / settings.evaluations_per_epoch))
        self.step = 0
        self.fraction = 0.0  # of the schedule: 0 at the start, 1 when the learning rate has fallen to 0
        self.best_step, self.best_value = 0, -math.inf
        self.losses: list[tuple[int, float, float]] = []
        self.evaluations: list[tuple[int, float]] = []
        self.seconds, self.step_seconds, self.evaluation_s = 0.0, 0.0, 0.0
        self.resumed_from: int | None = None
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups: dict[float, list[Any]] = {}
        for parameter in self.trained:
            groups.setdefault(settings.weight_decay if parameter.ndim >= 2 else 0.0, []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()],
            lr=settings.learning_rate,
            fused=True,
        )
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.kept = [name for name in model.state_dict() if name not in frozen]
        self.best = self._weights()
        self._loss_sum: Any = torch.zeros((), device=self.device)
        self._loss_steps = 0
        self._epoch = -1
        self._batches: list[npt.NDArray[np.int64]] = []

    def go(self, state: Path, identity: str, deadline: float | None) -> None:
        """Take all steps that are left, or those that the deadline allows; save at every epoch's end."""
        began, before = self.clock(), self.seconds
        with progress("Distilling", self.planned) as advance, interruptible() as interrupted:
            advance(self.fraction * self.planned)
            if self.step == 0:
                self._consider()
            self.model.train()
            paced_from = evaluated_s = 0.0
            first = self.step
            # A run that a deadline shortened may have been interrupted after its last step.
            remaining = self.planned - self.step if self.fraction < 1 else 0
            while remaining > 0:
                now = self.clock()
                taken = self.step - first
                if taken == 1:  # the first step is slower: kernels are chosen
                    paced_from, evaluated_s = now, 0.0
                if deadline is not None:
                    if taken % _REPLAN_STEPS == _UNPACED_STEPS:
                        pace = (now - paced_from - evaluated_s) / (taken - 1)
                        left = affordable_steps(deadline - now, pace, self.evaluation_s, self.every)
                        remaining = min(self.planned - self.step, left)
                    if now >= deadline or remaining == 0:
                        break
                fraction = self.fraction
                loss = self._advance(remaining)
                remaining -= 1
                self.step_seconds += self.clock() - now
                if remaining and self.step % self.every == 0 and self.evaluate is not None:
                    self._consider()
                    evaluated_s += self.evaluation_s
                self.seconds = before + self.clock() - began
                advance((self.fraction - fraction) * self.planned, note="" if math.isnan(loss) else f"loss {loss:.3f}")
                if interrupted.is_set():
                    self._snapshot().write(state, identity)
                    say(f"Stopped at step {self.step} of {self.planned}; the same command goes on from there")
                    raise KeyboardInterrupt
                if remaining and self.step % self.per_epoch == 0:
                    self._snapshot().write(state, identity)
            if self.step > 0:
                self._consider()
            self.seconds = before + self.clock() - began

    def finish(self) -> Curve:
        """Load the best weights and say what happened."""
        self.model.load_state_dict(self.best, strict=False)
        self.model.eval()
        texts = self.step * len(self.lengths) / self.per_epoch
        return Curve(
            losses=self.losses,
            evaluations=self.evaluations,
            best_step=self.best_step,
            steps=self.step,
            planned_steps=self.planned,
            resumed_from=self.resumed_from,
            seconds=round(self.seconds, 2),
            texts_per_s=round(texts / self.step_seconds, 1) if self.step_seconds else 0.0,
            precision=resolve(self.settings.precision, self.device),
        )

    def _advance(self, remaining: int) -> float:
        """Take a step, of which there are to be `remaining`; its loss."""
        import torch

        epoch, number = divmod(self.step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            generator = np.random.default_rng([self.seed, epoch])
            self._batches = shuffled(self.lengths, self.settings.batch_size, generator)
        after = self.fraction + (1 - self.fraction) / remaining
        # At the middle of the step, so that neither the first nor the last one is taken at rate 0.
        rate = self.settings.learning_rate * rate_at((self.fraction + after) / 2, self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.settings.precision, self.device):
            loss = self.loss(self._batches[number])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss_sum += loss.detach()
        self._loss_steps += 1
        self.step, self.fraction = self.step + 1, after
        if self.step % max(1, self.planned // 50) == 0 or remaining == 1:
            self._note_loss(rate)
        return self.losses[-1][1] if self.losses else math.nan

    def _note_loss(self, rate: float) -> None:
        """Read the loss, only now and then: on a GPU, reading it waits for the step to end."""
        mean = self._loss_sum.item() / self._loss_steps
        if not math.isfinite(mean):
            raise ExportError(
                f"the loss isn't finite at step {self.step}; learn at a lower rate than {self.settings.learning_rate:g}"
            )
        self.losses.append((self.step, mean, rate))
        self._loss_sum.zero_()
        self._loss_steps = 0

    def _consider(self) -> None:
        """Evaluate the weights as they are, and keep them unless others were better."""
        import torch

        began = self.clock()
        value = self.best_value
        if self.evaluate is not None:
            self.model.eval()
            with torch.no_grad():
                value = float(self.evaluate(self.model))
            self.model.train()
            self.evaluations.append((self.step, value))
        if value >= self.best_value:
            self.best_step, self.best_value, self.best = self.step, value, self._weights()
        self.evaluation_s = self.clock() - began

    def _weights(self) -> dict[str, Any]:
        """A copy of what changes while learning."""
        state = self.model.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.kept}

    def _snapshot(self) -> Snapshot:
        """Everything that the next step depends on."""
        import torch

        moments = {
            f"{number}.{name}": tensor.cpu()
            for number, state in self.optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        notes = {name: getattr(self, name) for name in _NOTES} | {"loss_sum": self._loss_sum.item()}
        return Snapshot({"weights": self._weights(), "best": self.best, "moments": moments, "random": random}, notes)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot`, of a run like this one; PyTorch's random state goes back, too."""
        import torch

        self.model.load_state_dict(snapshot.tensors["weights"], strict=False)
        self.best = snapshot.tensors["best"]
        state: dict[int, dict[str, Any]] = {}
        for key, tensor in snapshot.tensors["moments"].items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(snapshot.tensors["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(snapshot.tensors["random"]["cuda"], self.device)
        for name in _NOTES:
            setattr(self, name, _as_written(snapshot.notes)[name])
        self._loss_sum += snapshot.notes["loss_sum"]
        self.resumed_from = self.step


_NOTES = (
    "step",
    "fraction",
    "best_step",
    "best_value",
    "losses",
    "evaluations",
    "seconds",
    "step_seconds",
    "_loss_steps",
)
