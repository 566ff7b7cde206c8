"""Two endpoints under the same load in turn: A B, B A, A B, …

Measured one after the other, two servers are also two quarters of an hour, and the machine isn't the same in both. In
short blocks whose order alternates, what drifts evenly falls on both sides alike and cancels in each pair. Both blocks
of a pair get the same arrivals and the same texts in the same order. One side is under load at a time; side by side
they would measure each other.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadtests.address import resolve
from loadtests.bootstrap import Measured, ratios
from loadtests.generator import Elsewhere
from loadtests.page import comparison_page, write_page
from loadtests.run import run
from loadtests.slo import latency_of, machine
from loadtests.texts import load_texts
from slipway.artifacts import Artifact, inputs_digest, read_artifact, sha256_file, write_artifact
from slipway.bundle import EXPECTED, Bundle
from slipway.comparison import BLOCKS, COMPARISON, Block, Comparison, Ratio, Side
from slipway.errors import LoadTestError
from slipway.progress import say
from slipway.recipe import LoadTest
from slipway.verdict import SAMPLES, VERDICT, Verdict

_FEWEST_PAIRS = 4
_SEEDS_APART = 104_729


@dataclass(frozen=True)
class Contender:
    """One side: a running endpoint and the bundle that says what it must answer."""

    name: str
    bundle: Bundle
    address: str
    endpoint: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ran:
    block: Block
    measured: Measured
    verdict: Verdict


def compare(
    a: Contender,
    b: Contender,
    section: LoadTest,
    out: Path,
    *,
    texts: Path | None = None,
    allow_remote: bool = False,
    elsewhere: Elsewhere | None = None,
) -> Artifact:
    """Load `a` and `b` in turn and write a comparison artifact to `out`.

    Without `texts` both get those that the two bundles have in common; `elsewhere` says where workers of other machines
    come. Raises `LoadTestError` as `run` does, and if
    the bundles have no text in common. Then nothing is written.
    """
    for side in (a, b):
        resolve(side.address, allow_remote=allow_remote)
    parents = [a.bundle.artifact] + (
        [b.bundle.artifact] if b.bundle.artifact.digest != a.bundle.artifact.digest else []
    )
    assets = {"a": a.address, "b": b.address} | ({"texts": sha256_file(texts)} if texts else {})
    inputs = inputs_digest("loadtests", section.model_dump(mode="json"), parents, assets=assets)
    recipe = {"loadtest": section.model_dump(mode="json")}
    name = a.bundle.spec.name
    with (
        write_artifact(out, "comparison", name=name, inputs=inputs, parents=parents, recipe=recipe) as draft,
        tempfile.TemporaryDirectory() as scratch,
    ):
        files = (texts, texts) if texts else _common_texts(a.bundle, b.bundle, Path(scratch))
        pairs: list[tuple[_Ran, _Ran]] = []
        for pair in range(section.compare.pairs):
            order: tuple[Literal["a", "b"], ...] = ("a", "b") if pair % 2 == 0 else ("b", "a")
            ran = {}
            for place, which in enumerate(order):
                side, file = (a, files[0]) if which == "a" else (b, files[1])
                folder = draft.path / BLOCKS / f"{2 * pair + place:03}-{which}"
                ran[which] = _run(side, which, pair, 2 * pair + place, section, folder, file, allow_remote, elsewhere)
            pairs.append((ran["a"], ran["b"]))
            say(f"  pair {pair + 1} of {section.compare.pairs}: p99 {_p99(ran['a'])} and {_p99(ran['b'])} ms")
        count = len(load_texts(a.bundle, files[0]))
        comparison = _conclude(a, b, pairs, section, count)
        draft.write_json(COMPARISON, comparison.model_dump(mode="json"))
        write_page(draft.path, lambda: comparison_page(name, comparison))
        draft.metrics.update(outcome=comparison.outcome, **{f"{r.figure}_ratio": r.ratio for r in comparison.ratios})
    return read_artifact(out, "comparison", verify=False)


def _run(
    side: Contender,
    which: Literal["a", "b"],
    pair: int,
    number: int,
    section: LoadTest,
    folder: Path,
    texts: Path | None,
    allow_remote: bool,
    elsewhere: Elsewhere | None,
) -> _Ran:
    wanted = section.compare
    load = section.model_copy(
        update={
            "duration_s": wanted.block_s,
            "warmup_s": wanted.warmup_s,
            "seed": section.seed + _SEEDS_APART * pair,
            "chaos": [],
        }
    )
    artifact = run(
        side.bundle,
        side.address,
        load,
        folder,
        texts=texts,
        endpoint=side.endpoint,
        allow_remote=allow_remote,
        page=False,
        elsewhere=elsewhere,
    )
    verdict = Verdict.model_validate(artifact.json(VERDICT))
    samples = pq.read_table(artifact.path / SAMPLES, columns=["latency_ms", "outcome", "warmup"])
    samples = samples.filter(pc.invert(samples["warmup"]))
    correct = int(pc.sum(pc.equal(samples["outcome"], "ok")).as_py() or 0)
    block = Block(
        number=number,
        pair=pair,
        side=which,
        valid=verdict.outcome != "invalid",
        achieved_rate=verdict.achieved_rate,
        latency=verdict.latency,
        failures=verdict.failures,
    )
    return _Ran(block, Measured(samples["latency_ms"].to_numpy(), correct, load.duration_s), verdict)


def _common_texts(a: Bundle, b: Bundle, scratch: Path) -> tuple[Path | None, Path | None]:
    """For each side a file with the same texts in the same order and its own answers; None where its own do."""
    if a.artifact.digest == b.artifact.digest:
        return None, None
    tables = []
    for bundle in (a, b):
        load_texts(bundle)
        table = pq.read_table(bundle.path / EXPECTED)
        first = {text: row for row, text in reversed(list(enumerate(table["text"].to_pylist())))}
        tables.append((table, first))
    (left, left_rows), (right, right_rows) = tables
    common = [text for text in left_rows if text in right_rows]
    if not common:
        raise LoadTestError(
            f"The bundles {a.path} and {b.path} have no text in common, so they can't be asked the same. Give a file "
            "with a column 'text' by --texts."
        )
    common.sort(key=left_rows.__getitem__)
    files = scratch / "a.parquet", scratch / "b.parquet"
    for file, table, rows in ((files[0], left, left_rows), (files[1], right, right_rows)):
        pq.write_table(table.take(pa.array([rows[text] for text in common])), file)
    return files


def _conclude(a: Contender, b: Contender, pairs: list[tuple[_Ran, _Ran]], section: LoadTest, texts: int) -> Comparison:
    valid = [pair for pair in pairs if pair[0].block.valid and pair[1].block.valid]
    enough = len(valid) >= _FEWEST_PAIRS
    confidence = section.compare.confidence
    found = ratios([(left.measured, right.measured) for left, right in valid], confidence) if enough else []
    worst = section.compare.max_p99_ratio
    p99 = next((ratio for ratio in found if ratio.figure == "p99"), None)
    breached = worst is not None and p99 is not None and p99.low > worst
    believed = valid or pairs
    first = pairs[0][0].verdict
    return Comparison(
        outcome="invalid" if not enough else "missed" if breached else "met",
        reason=_reason(a.name, b.name, found, len(valid), len(pairs), confidence, worst if breached else None),
        a=_side(a, [pair[0] for pair in believed]),
        b=_side(b, [pair[1] for pair in believed]),
        ratios=found,
        confidence=confidence,
        pairs=len(valid),
        max_p99_ratio=worst,
        blocks=sorted((ran.block for pair in pairs for ran in pair), key=lambda block: block.number),
        rate=section.rate,
        arrivals=str(first.arrivals),
        protocols=list(section.protocols),
        seed=section.seed,
        texts=texts,
        machine=machine(),
    )


def _side(contender: Contender, blocks: list[_Ran]) -> Side:
    latency = np.concatenate([ran.measured.latency_ms for ran in blocks])
    correct = sum(ran.measured.correct for ran in blocks)
    return Side(
        name=contender.name,
        latency=latency_of(latency),
        achieved_rate=correct / sum(ran.measured.seconds for ran in blocks),
        error_rate=1 - correct / len(latency),
        endpoint=blocks[0].verdict.endpoint,
    )


def _reason(
    a: str, b: str, found: list[Ratio], valid: int, pairs: int, confidence: float, breached: float | None
) -> str:
    if not found:
        return (
            f"Only {valid} of {pairs} pairs of blocks are valid, and {_FEWEST_PAIRS} are needed: the load generator "
            "could not keep its schedule. Give it more CPU or lower the rate."
        )
    ratio = next((each for each in found if each.figure == "p99"), found[0])
    interval = f"{ratio.low:.2f} to {ratio.high:.2f} with {confidence:.0%} confidence, {valid} pairs of blocks"
    if breached is not None:
        return f"The p99 of {b} is {ratio.ratio:.2f} times that of {a}, at most {breached:g} allowed ({interval})."
    if not ratio.differs:
        return f"No difference of the p99 was shown: {b} over {a} is {ratio.ratio:.2f} ({interval})."
    word = "slower" if ratio.ratio > 1 else "faster"
    factor = ratio.ratio if ratio.ratio > 1 else 1 / ratio.ratio
    return f"{b} is {factor:.2f} times {word} than {a} at the p99: ratio {ratio.ratio:.2f} ({interval})."


def _p99(ran: _Ran) -> str:
    return f"{ran.block.latency.p99:.1f}{'' if ran.block.valid else ' (invalid)'}"
