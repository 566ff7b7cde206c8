"""What padding costs: the same random-length requests, pooled as Triton hands them over, batched in four ways in turn.

    python -m benchmarks.serving.padding BUNDLE [ROUNDS]

    rectangle   everything that was handed over in one batch, padded to the longest: what a server does by default
    budget      sorted by length, cut at so many tokens
    bounded     and a row joins a longer one only if four fifths of its place are filled: what is served
    alone       each text by itself

Lengths are log-normal around 24 tokens, as those of reviews and posts are, up to what the model takes; texts are the
bundle's own, cut and joined. Everything runs in this process with one thread, interleaved, so that whatever else the
machine does hits all alike. It needs a bundle whose answers don't depend on what is in a batch.
"""

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from slipway.batching import TokenBudget
from slipway.bundle import EXPECTED, Bundle
from slipway.encoder import TokenRow
from slipway.predictor import Predictor, Work
from slipway.progress import track

POOLS = (4, 16, 64)
UNBOUNDED = 10**9
WAYS = {
    "rectangle": TokenBudget(UNBOUNDED, UNBOUNDED, 0.0, row_counts=()),
    "budget": TokenBudget(least_filled=0.0, row_counts=()),
    "bounded": TokenBudget(),
    "alone": TokenBudget(rows=1),
}
TYPICAL_TOKENS, SPREAD = 24, 0.8


@dataclass
class Taken:
    """What a way of batching took, in all."""

    seconds: float = 0.0
    requests: int = 0
    tokens: int = 0
    padded: int = 0

    def add(self, seconds: float, requests: int, work: Work) -> None:
        self.seconds += seconds
        self.requests += requests
        self.tokens += work.tokens
        self.padded += work.padded_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("rounds", type=int, nargs="?", default=40)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    target = bundle.target("cpu")
    if not target.batch_invariant:
        raise SystemExit("this bundle's model is run row by row: there is no padding to measure")
    predictors = {
        way: Predictor(bundle.path, bundle.spec, target, threads=1, budget=budget) for way, budget in WAYS.items()
    }
    rows = predictors["rectangle"].encoder.rows(random_texts(bundle, 4096))
    taken = measure(predictors, rows, arguments.rounds)
    show(taken, bundle, [row.tokens for row in rows])


def random_texts(bundle: Bundle, count: int) -> list[str]:
    """Texts of random lengths, cut from and joined of the bundle's own."""
    generator = np.random.default_rng(0)
    words = " ".join(pq.read_table(bundle.path / EXPECTED)["text"].to_pylist()).split()
    lengths = np.maximum(1, generator.lognormal(np.log(TYPICAL_TOKENS), SPREAD, count)).astype(int)
    starts = generator.integers(0, len(words), count)
    return [
        " ".join(words[(start + offset) % len(words)] for offset in range(length))
        for start, length in zip(starts, lengths, strict=True)
    ]


def measure(predictors: dict[str, Predictor], rows: Sequence[TokenRow], rounds: int) -> dict[tuple[int, str], Taken]:
    generator = np.random.default_rng(1)
    taken = {(pool, way): Taken() for pool in POOLS for way in predictors}
    for predictor in predictors.values():
        predictor.run(list(rows[:64]))
    for _ in track(range(rounds), "Batching"):
        for pool in POOLS:
            drawn = [rows[number] for number in generator.integers(0, len(rows), pool)]
            for way in generator.permutation(list(predictors)):
                started = time.perf_counter()
                _, work = predictors[way].run(drawn)
                taken[pool, str(way)].add(time.perf_counter() - started, pool, work)
    return taken


def show(taken: dict[tuple[int, str], Taken], bundle: Bundle, tokens: Sequence[int]) -> None:
    target = bundle.target("cpu")
    p50, p95 = np.percentile(tokens, [50, 95])
    table = Table(
        title=f"{bundle.spec.name}, {target.engine} {target.precision}, 1 thread; tokens p50 {p50:.0f}, p95 {p95:.0f}; "
        f"{platform.processor() or platform.machine()}"
    )
    for column in ("handed over", "batched", "padded", "requests/s", "x rectangle"):
        table.add_column(column, justify="right")
    for pool in POOLS:
        base = taken[pool, "rectangle"]
        for way in WAYS:
            one = taken[pool, way]
            rate = one.requests / one.seconds
            table.add_row(
                str(pool), way, f"{one.padded / (one.tokens + one.padded):.0%}", f"{rate:,.0f}",
                f"{rate / (base.requests / base.seconds):.2f}",
            )  # fmt: skip
        table.add_section()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
