"""Telling the observer of every call; that nothing it does can harm an answer is `serving.model.observers.Guarded`."""

import time
from collections.abc import Sequence
from typing import Any

from serving.model.observation import Answered, Executed, Observer, Refusal, Request, Silent
from serving.model.observers import make_observer
from serving.model.settings import Loaded
from slipway.predictor import Work


class Reporter:
    """A model whose observer can't be made says so, and answers all the same."""

    def __init__(self, triton: Any, loaded: Loaded) -> None:
        self._observer: Observer = Silent()
        try:
            self._observer = make_observer(triton, loaded)
        except Exception as error:
            # Not its message, which may name what nobody but its owner should see.
            triton.Logger.log_warn(f"the model is not observed ({type(error).__name__}); answers are not affected")

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
        self._observer.executed(
            Executed(
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
        )

    def close(self) -> None:
        """The model is unloaded."""
        self._observer.close()
