"""Triton's dynamic batcher: when it is on, which sizes it prefers, how long its queue may grow.

It is on for models whose answers don't depend on what is in the batch: requests that wait anyway are handed over
together, and eight short texts in a batch are 1.4 to 1.6 times as fast a text. It never waits for more by itself
(`queue_delay_us` 0): on two cores every delay that was tried cost more than it gave.

A model whose int8 ranges are taken over the whole batch runs row by row, and a batch would only make the first answer
wait for the last. Triton's queue limits come with its batcher, though, so it gets one that hands over single requests.

The queue is bounded in length and in time. What is refused is refused at once, with UNAVAILABLE, which may be tried
again; what has waited longer than anybody waits for it is dropped before it costs anything.
"""

import json
from typing import Any

from serving.protocol import MAX_ROWS
from serving.repository.plan import RepositorySpec, TargetName
from slipway.bundle import FRONTIER, Bundle, Variant

_GAIN = 1.05
"""A larger batch is worth it from this much more throughput on."""
_UNMEASURED = (8, 16, 32, 64)
"""For a GPU that the export had none of: what fills tensor cores, in steps that a queue can meet."""


def dynamic_batching(schema: Any, spec: RepositorySpec, target: TargetName, *, invariant: bool) -> Any:
    """The `dynamic_batching` of a step."""
    policy = schema.ModelQueuePolicy(
        timeout_action=schema.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=round(spec.timeout_s * 1e6),
        allow_timeout_override=True,
        max_queue_size=spec.max_queue,
    )
    return schema.ModelDynamicBatching(
        preferred_batch_size=spec.preferred_sizes.get(target, []) if invariant else [1],
        max_queue_delay_microseconds=spec.queue_delay_us if invariant else 0,
        default_queue_policy=policy,
    )


def preferred_sizes(bundle: Bundle) -> dict[TargetName, list[int]]:
    """Batch sizes that the export measured to be worth it, by target; by rule for a GPU that it had none of."""
    # The search was for one target: the only one, or, where a GPU's model was added, the CPU's.
    rates = {next(iter(sorted(bundle.spec.targets))): _measured_rates(bundle)}
    found: dict[TargetName, list[int]] = {}
    for target, model in bundle.spec.targets.items():
        if not model.batch_invariant:
            found[target] = []
        elif rates.get(target):
            found[target] = _worth_it(rates[target])
        else:
            found[target] = list(_UNMEASURED) if target == "gpu" else []
    return found


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
