"""Who observes the model: counts, traces, capture; and the guard that keeps them from harming an answer.

What is asked for comes through the environment (`serving.observability.settings`); a model that is told nothing counts
and does nothing else.
"""

import os
from collections.abc import Sequence
from typing import Any, get_args

from serving.model.observation import Executed, Observer
from serving.model.settings import Loaded
from serving.observability.metrics import Metrics, Registry
from serving.observability.settings import CaptureSettings, Settings


def make_observer(triton: Any, loaded: Loaded) -> Observer:
    """The observer of a model's process; `triton` is the module `triton_python_backend_utils`.

    Raises `ServingError` if something is asked for whose extra is not installed.
    """
    settings = Settings.from_environment()
    model, version = loaded.spec.name, loaded.directory.name
    # The steps of an ensemble are called `MODEL_STEP`; the fused model is its only step.
    step = loaded.directory.parent.name.removeprefix(model).removeprefix("_") or "fused"
    registry = Registry(triton, {"model": model, "version": version, "step": step})
    observers: list[Observer] = [Metrics(registry, loaded.spec.labels)]
    if settings.otlp is not None:
        from serving.observability.spans import Spans

        observers.append(Spans(settings.otlp, settings.service, model=model, version=version))
    if settings.capture is not None:
        observers.append(_capture(settings.capture, registry, model, version))
    return Guarded(observers, triton.Logger, registry)


class Guarded:
    """Tells several observers; one that fails does not keep the others from being told, and says so once."""

    def __init__(self, observers: Sequence[Observer], logger: Any, registry: Registry) -> None:
        self._observers = observers
        self._logger = logger
        self._registry = registry
        self._failures = registry.counter("slipway_observer_failures_total", "Failures of metrics, traces or capture.")
        self._complained: set[str] = set()

    def executed(self, batch: Executed) -> None:
        """Tell each."""
        for observer in self._observers:
            try:
                observer.executed(batch)
            except Exception as error:  # an answer must not fail because it was observed
                self._complain(observer, error)

    def close(self) -> None:
        """Close each, the one that counts last: the others count until they are closed."""
        for observer in reversed(self._observers):
            try:
                observer.close()
            except Exception as error:  # the model is going, whatever an observer thinks of it
                self._complain(observer, error)

    def _complain(self, observer: Observer, error: Exception) -> None:
        self._registry.add([(self._failures, 1)])
        name = type(observer).__name__
        if name not in self._complained:
            self._complained.add(name)
            # Not the error's own words, which may quote a text.
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f", line {where.tb_lineno}" if where is not None else ""
            self._logger.log_warn(
                f"{name} failed with {type(error).__name__}{line}; said once. Answers are not affected."
            )


def _capture(settings: CaptureSettings, registry: Registry, model: str, version: str) -> Observer:
    from serving.privacy.capture import Capture, Outcome, capture_files
    from serving.privacy.presidio import capture_masker

    about = "Texts that were chosen to be captured, by what became of them."
    places = {
        outcome: registry.counter("slipway_captured_rows_total", about, outcome=outcome)
        for outcome in get_args(Outcome)
    }
    return Capture(
        capture_files(settings.directory, settings.max_mb, settings.max_file_mb, writers=os.cpu_count() or 1),
        capture_masker(),
        rate=settings.rate,
        model=model,
        version=version,
        count=lambda outcome, rows: registry.add([(places[outcome], rows)]),
    )
