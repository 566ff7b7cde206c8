"""Requests that Triton hands over together, answered together, each as if it had been alone.

Their texts are tokenized in one call and pooled; the pool is run by length within a budget of tokens
(`slipway.batching`), so that padding is bounded whatever the requests are. With a model whose answers depend on what is
in the batch, rows are run one by one (`slipway.predictor`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.model.incoming import Incoming, too_late
from serving.model.observation import Answered
from serving.model.outputs import Answer, Decoder
from serving.model.refusals import RefusedError
from serving.model.settings import LongText
from serving.model.tokens import token_rows
from slipway.encoder import TokenRow
from slipway.predictor import Predictor, Work


@dataclass
class Pool:
    """What became of the requests of one call."""

    results: list[Answer | RefusedError] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    tokenized_s: float = 0.0
    computed_s: float = 0.0


class Answering:
    """A model that answers texts."""

    def __init__(self, predictor: Predictor, decoder: Decoder, long_text: LongText) -> None:
        self._predictor = predictor
        self._decoder = decoder
        self._long_text: LongText = long_text

    def answer(self, requests: Sequence[Incoming]) -> Pool:
        """A result for each request, in order."""
        try:
            return self._together(requests)
        # One request's failure must not become its neighbours', and which one it was nobody knows.
        except Exception as error:
            if len(requests) > 1:
                return _joined([self.answer([request]) for request in requests])
            now = time.time()
            failure = RefusedError("internal", f"the model failed: {type(error).__name__}")
            return Pool([failure], tokenized_s=now, computed_s=now)

    def _together(self, requests: Sequence[Incoming]) -> Pool:
        tokenized = token_rows(self._predictor.encoder, requests, self._long_text)
        pool = Pool(tokenized_s=time.time())
        # A huge text among them may have taken a while.
        late = [too_late(request.about, pool.tokenized_s) for request in requests]
        found = [refusal or rows for refusal, rows in zip(late, tokenized, strict=True)]
        rows: list[TokenRow] = [row for each in found if not isinstance(each, RefusedError) for row in each]
        logits, pool.work = self._predictor.run(rows)
        pool.computed_s = time.time()
        scores = self._decoder.scores(logits)
        start = 0
        for request, each in zip(requests, found, strict=True):
            if isinstance(each, RefusedError):
                pool.results.append(each)
                continue
            end = start + len(each)
            truncated = [row.truncated for row in each]
            answer = self._decoder.answer(logits[start:end], scores[start:end], truncated, request.top_k)
            windows = [len(row.windows) for row in each]
            pool.results.append(answer)
            pool.answered.append(
                Answered(request.about, request.texts, *self._decoder.told(answer), truncated, windows)
            )
            start = end
        return pool


def _joined(pools: Sequence[Pool]) -> Pool:
    work = [pool.work for pool in pools]
    return Pool(
        [result for pool in pools for result in pool.results],
        [answered for pool in pools for answered in pool.answered],
        Work(
            sum(one.tokens for one in work),
            sum(one.padded_tokens for one in work),
            sum(one.runs for one in work),
        ),
        pools[0].tokenized_s,
        pools[-1].computed_s,
    )
