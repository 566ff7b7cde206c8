"""Telling the observer of every call, so that nothing it does can harm an answer."""

import time
from collections.abc import Sequence
from typing import Any

from serving.model.observation import Answered, Executed, Observer, Refusal, Request
from serving.model.observers import make_observer
from serving.model.settings import Loaded
from slipway.predictor import Work


class Reporter:
    """An observer's failures are logged, once for each kind, and go no further."""

    def __init__(self, triton: Any, loaded: Loaded) -> None:
        self._triton = triton
        self._failures: set[str] = set()
        self._observer: Observer | None = None
        try:
            self._observer = make_observer(triton, loaded.parameters, loaded.directory)
        except Exception as error:
            self._log(error)

    def executed(
        self,
        started_s: float,
        tokenized_s: float,
        computed_s: float,
        work: Work,
        answered: Sequence[Answered],
        refused: Sequence[tuple[Request, Refusal]],
    ) -> None:
        """One call is over."""
        if self._observer is None:
            return
        told = Executed(
            started_s=started_s,
            tokenized_s=tokenized_s,
            computed_s=computed_s,
            ended_s=time.time(),
            tokens=work.tokens,
            padded_tokens=work.padded_tokens,
            runs=work.runs,
            answered=answered,
            refused=refused,
        )
        try:
            self._observer.executed(told)
        except Exception as error:
            self._log(error)

    def close(self) -> None:
        """The model is unloaded."""
        if self._observer is not None:
            try:
                self._observer.close()
            except Exception as error:
                self._log(error)

    def _log(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._failures:
            self._failures.add(kind)
            # Not its message, which may hold a text.
            self._triton.Logger.log_warn(f"the model's observer failed ({kind}); answers are not affected")
