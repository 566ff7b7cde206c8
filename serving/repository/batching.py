"""Triton's dynamic batcher: what it hands over together.

Requests that wait anyway are handed over together, if the model's answers don't depend on what is in the batch and
unless the export measured that batches gain nothing. With 32 callers the model processes spent 18 % less time on the
same requests on ONNX Runtime (MiniLM, fp32) and 24 % less on OpenVINO (static int8). It never waits for more by itself
(`queue_delay_us` 0): on two cores every delay that was tried cost more than it gave.

The price is the first answer's, which waits for the last, and it is higher on a machine that is shared: a process that
computes for 40 ms at a stretch is preempted where one that computes for 5 ms is not. Beside ten busy processes the same
fp32 model answered fewer requests/s in batches (125) than one by one (216), in spite of the work that they saved.

Otherwise requests are handed over one by one. The batcher stays, because it drops what was cancelled while it waited.
In an ensemble, whose purpose it is, the encoder always batches: only requests of one shape meet.

Declined: Triton's queue policy (`max_queue_size`, `default_timeout_microseconds`, `allow_timeout_override`). With any
of them the batcher prepares no request before an instance is idle, and nobody wakes it when one becomes so: a request
that came while all were busy waits for the next one, or half a second (`DynamicBatchScheduler::Enqueue`, in Triton
2.51 as in the newest source). Of bursts of up to six callers 5 in 1,000 requests did, of one caller at one instance 11,
and on one core 50 and more; without a policy none (`benchmarks/serving/queue_policy.py`). So the front door bounds what
waits (`serving.frontdoor.overload`), and the model drops what nobody waits for any more (`serving.model.incoming`).
"""

import json
from typing import Any

from serving.protocol import MAX_ROWS
from serving.repository.plan import RepositorySpec, TargetName
from slipway.bundle import FRONTIER, Bundle, Target, Variant

_GAIN = 1.05
"""A larger batch is worth it from this much more throughput on."""
_SINGLE = [1]
_UNMEASURED = (8, 16, 32, 64)
"""For a GPU that the export had none of: what fills tensor cores, in steps that a queue can meet."""


def dynamic_batching(schema: Any, spec: RepositorySpec, target: TargetName) -> Any:
    """The `dynamic_batching` of a step."""
    sizes = spec.preferred_sizes[target]
    if spec.layout == "ensemble":
        sizes = [size for size in sizes if size > 1]
    return schema.ModelDynamicBatching(
        preferred_batch_size=sizes,
        max_queue_delay_microseconds=0 if sizes == _SINGLE else spec.queue_delay_us,
    )


def preferred_sizes(bundle: Bundle) -> dict[TargetName, list[int]]:
    """Batch sizes that are worth it, by target: `[1]` if none is, `[]` for any.

    By the export's measurements where it had the target; otherwise by rule.
    """
    # The search was for one target: the only one, or, where a GPU's model was added, the CPU's.
    rates = {min(bundle.spec.targets): _measured_rates(bundle)}
    return {target: _sizes(target, model, rates.get(target)) for target, model in bundle.spec.targets.items()}


def _sizes(target: TargetName, model: Target, rates: dict[int, float] | None) -> list[int]:
    if not model.batch_invariant:
        return _SINGLE
    if rates:
        return _worth_it(rates) or _SINGLE
    if target == "gpu":
        return list(_UNMEASURED)
    return []


def _measured_rates(bundle: Bundle) -> dict[int, float]:
    """Texts/s by batch size, at the fewest tokens that were measured, of the variant that was chosen."""
    file = bundle.path / FRONTIER
    variants = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    chosen = next((variant for variant in map(Variant.model_validate, variants) if variant.chosen), None)
    if chosen is None or not chosen.speeds:
        return {}
    by_tokens: dict[int, dict[int, float]] = {}
    for shape, speed in chosen.speeds.items():
        size, tokens = map(int, shape.split("x"))
        by_tokens.setdefault(tokens, {})[size] = speed.sequences_per_s
    return by_tokens[min(by_tokens)]


def _worth_it(rates: dict[int, float]) -> list[int]:
    sizes, best = [], rates.get(1, 0.0)
    for size, rate in sorted(rates.items()):
        if 1 < size <= MAX_ROWS and rate > _GAIN * best:
            sizes.append(size)
            best = rate
    return sizes
