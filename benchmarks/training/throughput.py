"""How many texts a second a training step takes, with and without what the default does to be quick.

    python benchmarks/training/throughput.py [RECIPE] [--steps 6] [--rounds 3]

Each way gets its own model and optimizer; rounds take turns. Printed: median texts/s over the rounds, spread, and the
ratio to the first row. Uses the recipe's base, data, batch size and as many threads as PyTorch takes.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slipway.recipe import Recipe, Train, load_recipe
from training.bases import load_base
from training.optimizer import build_optimizer
from training.splits import split_table
from training.tables import read_table


@dataclass
class Way:
    name: str
    bf16: bool
    fused: bool
    similar_length: bool
    batch_size: int
    frozen_embeddings: bool = False


def ways(batch_size: int) -> list[Way]:
    return [
        Way(f"fp32, random batches of {batch_size}, plain AdamW", False, False, False, batch_size),
        Way(f"bf16, random batches of {batch_size}, plain AdamW", True, False, False, batch_size),
        Way(f"bf16, random batches of {batch_size}, fused AdamW", True, True, False, batch_size),
        Way(f"bf16, similar length, {batch_size}, fused AdamW", True, True, True, batch_size),
        Way(f"bf16, similar length, {batch_size // 2}, fused AdamW", True, True, True, batch_size // 2),
        Way(f"bf16, similar length, {batch_size}, fused AdamW, frozen embeddings", True, True, True, batch_size, True),
        Way(f"fp32, similar length, {batch_size}, fused AdamW", False, True, True, batch_size),
    ]


def batches(tokens: list[list[int]], way: Way, steps: int, seed: int) -> list[list[list[int]]]:
    generator = random.Random(seed)
    if not way.similar_length:
        return [generator.sample(tokens, way.batch_size) for _ in range(steps)]
    starts = [generator.randrange(len(tokens) - way.batch_size) for _ in range(steps)]
    return [tokens[start : start + way.batch_size] for start in starts]


def stepper(recipe: Recipe, labels: list[str], way: Way) -> Callable[[list[list[int]]], Any]:
    base = load_base(recipe.base, recipe.task, labels, recipe.train.max_tokens, seed=0)
    model = base.model.train()
    model.get_input_embeddings().requires_grad_(not way.frozen_embeddings)
    if way.fused:
        optimizer = build_optimizer(model, Train())
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=False)

    def step(rows: list[list[int]]) -> None:
        batch = base.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=way.bf16):
            loss = model(**batch, labels=torch.zeros(len(rows), dtype=torch.long)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", type=Path, default=Path("examples/reviews.yaml"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    splits = split_table(read_table(recipe.data), recipe.data, recipe.seed)
    tokenizer = load_base(recipe.base, recipe.task, splits.labels, recipe.train.max_tokens, seed=0).tokenizer
    tokens = sorted(
        tokenizer(splits.train.texts, truncation=True, max_length=recipe.train.max_tokens).input_ids, key=len
    )

    compared = ways(recipe.train.batch_size)
    steps = {way.name: stepper(recipe, splits.labels, way) for way in compared}
    for way in compared:
        for rows in batches(tokens, way, 2, seed=99):
            steps[way.name](rows)
    rates: dict[str, list[float]] = {way.name: [] for way in compared}
    for number in range(options.rounds):
        for way in compared:
            chosen = batches(tokens, way, options.steps, seed=number)
            started = time.perf_counter()
            for rows in chosen:
                steps[way.name](rows)
            rates[way.name].append(options.steps * way.batch_size / (time.perf_counter() - started))

    mean_tokens = sum(map(len, tokens)) / len(tokens)
    print(
        f"{torch.get_num_threads()} threads, {mean_tokens:.0f} tokens a text, "
        f"{options.rounds} rounds of {options.steps} steps"
    )
    first = statistics.median(rates[compared[0].name])
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:<60} {middle:7.1f} texts/s  ({min(values):.0f}-{max(values):.0f})  {middle / first:.2f}x")


if __name__ == "__main__":
    main()
