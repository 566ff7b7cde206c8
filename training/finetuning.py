"""Fine-tune: `transformers.Trainer` with our optimizer, our progress and a checkpoint that a kill can't spoil.

Trainer was chosen over a loop of our own on `accelerate`: it brings DDP and FSDP under `torchrun`, mid-epoch resumption
with the random states, gradient clipping, autocast and early stopping, tested by many. Its price is two gaps, closed
here:

- it writes a checkpoint file by file, so a kill in between leaves one that can't be read. A marker written last tells
  the whole ones apart, and only those are resumed from;
- Ctrl-C loses what came after the last checkpoint. Here the first Ctrl-C lets the current step end, saves and stops;
  the same command then goes on from that step. A second Ctrl-C stops at once.

bf16 is used where the processor multiplies it natively (AVX512-BF16, AMX, Ampere and later); elsewhere it is emulated
and slower than fp32. Weights and optimizer stay fp32 (autocast). Batches are drawn from texts of similar length: with a
mean of 25 tokens, padding to the longest of 32 random texts is 40 % of all tokens.
"""

import math
import os
import shutil
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slipway.interruption import interruptible
from slipway.progress import Advance, progress, say
from slipway.recipe import Train
from slipway.tasks import get_task
from training.bases import LoadedBase
from training.optimizer import build_optimizer
from training.splits import Split

_WHOLE = "slipway-complete"


@dataclass(frozen=True)
class History:
    """What happened during training, step by step."""

    metric: str
    best_step: int
    steps: list[dict[str, float]]
    evaluations: list[dict[str, float]]
    stopped_early: bool
    resumed_from: int | None
    seconds: float
    precision: str


def fine_tune(
    base: LoadedBase,
    train: Split,
    dev: Split,
    labels: Sequence[str],
    section: Train,
    *,
    task: str,
    seed: int,
    work: Path,
) -> History:
    """Fine-tune `base.model` in place and leave it with the best weights on `dev`.

    Args:
        base: model and tokenizer.
        train: texts and class numbers to learn from.
        dev: texts and class numbers that pick the best step.
        labels: names of the classes.
        section: the recipe's `train`.
        task: name of the task, for its metrics.
        seed: of shuffling and dropout.
        work: folder for resumable checkpoints; whole ones in it are resumed from.

    Raises `KeyboardInterrupt` after saving if interrupted.
    """
    import transformers

    started = time.monotonic()
    bf16 = uses_bf16(section)
    base.model.get_input_embeddings().requires_grad_(not section.freeze_embeddings)
    train_rows, dev_rows = (_encode(base.tokenizer, split, section.max_tokens) for split in (train, dev))
    dev_rows.sort(key=lambda row: len(row["input_ids"]))
    steps_per_epoch = math.ceil(len(train_rows) / section.batch_size)
    total_steps = max(1, math.ceil(steps_per_epoch * section.epochs))
    every = max(1, math.ceil(steps_per_epoch / section.evaluations_per_epoch))
    # TrainingArguments only ever turns this on, so that one run in bf16 would leave it on for the next in this process.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    arguments = transformers.TrainingArguments(
        output_dir=str(work),
        max_steps=total_steps,
        per_device_train_batch_size=section.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=section.learning_rate,
        weight_decay=section.weight_decay,
        lr_scheduler_type=section.schedule if section.schedule != "constant" else "constant_with_warmup",
        warmup_steps=math.ceil(total_steps * section.warmup),
        max_grad_norm=section.max_grad_norm,
        label_smoothing_factor=section.label_smoothing,
        bf16=bf16,
        seed=seed,
        data_seed=seed,
        group_by_length=True,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=section.metric,
        greater_is_better=True,
        logging_steps=max(1, min(10, total_steps // 20)),
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not _has_gpu(),
    )

    def compute_metrics(predictions: Any) -> dict[str, float]:
        metrics = get_task(task).evaluate(predictions.predictions, predictions.label_ids.astype(np.int64), labels)
        return {name: value for name, value in metrics.items() if isinstance(value, float)}

    resume_from = _last_whole_checkpoint(work)
    with progress("Fine-tuning", total_steps) as advance, interruptible() as interrupted:
        reporter = _reporter(advance, interrupted, resumed_at=_step_of(resume_from) if resume_from else 0)
        trainer = transformers.Trainer(
            model=base.model,
            args=arguments,
            train_dataset=train_rows,
            eval_dataset=dev_rows,
            data_collator=transformers.DataCollatorWithPadding(base.tokenizer),
            compute_metrics=compute_metrics,
            optimizers=(build_optimizer(base.model, section), None),
            callbacks=[
                reporter,
                transformers.EarlyStoppingCallback(early_stopping_patience=section.patience),
            ],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        if resume_from is not None:
            say(f"Resuming fine-tuning from step {_step_of(resume_from)} of {total_steps}")
        # Checkpoints sort by step as well as by time.
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except BaseException:
            _remove_unfinished(work)
            raise
        if interrupted.is_set():
            say(f"Stopped at step {trainer.state.global_step} of {total_steps}; the same command goes on from there")
            raise KeyboardInterrupt
    # Under bf16 the model's forward was wrapped in autocast; what follows compares in fp32.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return _history(
        trainer.state,
        section,
        resumed_from=_step_of(resume_from) if resume_from else None,
        stopped_early=trainer.state.global_step < total_steps,
        seconds=time.monotonic() - started,
        precision="bf16" if bf16 else "fp32",
    )


def uses_bf16(section: Train) -> bool:
    """Whether to run in bf16 autocast: as the recipe says, or where the processor has it natively."""
    if section.precision != "auto":
        return section.precision == "bf16"
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _encode(tokenizer: Any, split: Split, max_tokens: int) -> list[dict[str, Any]]:
    encoded = tokenizer(list(split.texts), truncation=True, max_length=max_tokens)
    return [
        {**{name: encoded[name][row] for name in encoded}, "labels": target} for row, target in enumerate(split.targets)
    ]


def _reporter(advance: Advance, interrupted: threading.Event, *, resumed_at: int) -> Any:
    """A Trainer callback that shows progress, marks whole checkpoints and stops cleanly when interrupted."""
    import transformers

    class Reporter(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            advance(resumed_at)

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            advance(1)
            if state.global_step >= state.max_steps:
                # Trainer evaluates at multiples only, and so would never consider where the last step led.
                control.should_evaluate = control.should_save = True
            if interrupted.is_set():
                control.should_save = control.should_training_stop = True

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                advance(0, note=f"loss {logs['loss']:.3f}")

        def on_evaluate(self, arguments: Any, state: Any, _: Any, metrics: dict[str, float], **__: Any) -> None:
            name = arguments.metric_for_best_model
            say(
                f"  step {state.global_step}: dev {name} {metrics[f'eval_{name}']:.4f}, loss {metrics['eval_loss']:.3f}"
            )

        def on_save(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            (Path(arguments.output_dir) / f"checkpoint-{state.global_step}" / _WHOLE).touch()

    return Reporter()


def _last_whole_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint in `work` that was written to its end; the others are removed."""
    whole: list[Path] = []
    for checkpoint in work.glob("checkpoint-*"):
        if (checkpoint / _WHOLE).is_file():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=_step_of, default=None)


def _remove_unfinished(work: Path) -> None:
    """Leave `work` with whole checkpoints only, and not at all without one: on a full disk every byte counts."""
    if _last_whole_checkpoint(work) is None:
        shutil.rmtree(work, ignore_errors=True)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _history(
    state: Any,
    section: Train,
    *,
    resumed_from: int | None,
    stopped_early: bool,
    seconds: float,
    precision: str,
) -> History:
    steps = [
        {name: entry[name] for name in ("step", "epoch", "loss", "learning_rate")}
        for entry in state.log_history
        if "loss" in entry
    ]
    evaluations = [
        {name.removeprefix("eval_"): value for name, value in entry.items() if not name.endswith("_per_second")}
        for entry in state.log_history
        if "eval_loss" in entry
    ]
    return History(
        metric=section.metric,
        best_step=int(Path(state.best_model_checkpoint).name.rpartition("-")[2]),
        steps=steps,
        evaluations=evaluations,
        stopped_early=stopped_early,
        resumed_from=resumed_from,
        seconds=round(seconds, 1),
        precision=precision,
    )
