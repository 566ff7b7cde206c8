"""Progress for people and for logs: a bar where there is a terminal, a plain line now and then where there is none.

`rich` draws the bar. Without a terminal it would either draw nothing or write control characters into a log file, so
there a line is printed when a step starts, every few seconds while it runs, and when it ends.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

console = Console(stderr=True, highlight=False)

_PLAIN_INTERVAL_S = 5.0
_voice: Callable[[int, str], None] | None = None

Advance = Callable[..., None]
"""`advance(n=1, note="")`: n more units are done."""


@contextlib.contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Advance]:
    """Show that `label` is under way; call the yielded `advance(n, note=...)` as units are done.

    `total` None means that the length is not known: a spinner, or the bare count in plain lines.
    """
    shown = _bar(label, total) if console.is_terminal and _voice is None else _plain(label, total)
    with shown as advance:
        yield advance


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items`, showing progress."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(label, total) as advance:
        for item in items:
            yield item
            advance()


def say(message: str) -> None:
    """Print one line for the user, on stderr so that stdout stays for results."""
    if _voice is not None:
        _voice(logging.INFO, message)
    else:
        console.print(message, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error for the user, who must act on it."""
    if _voice is not None:
        _voice(logging.ERROR, message)
        return
    for line in message.splitlines():
        # What is indented belongs to the line above it: the end of a log, say.
        start = "" if line.startswith(" ") else "error: "
        console.print(f"{start}{line}", markup=False, soft_wrap=True, style="red" if start else None)


def speak_through(voice: Callable[[int, str], None] | None) -> None:
    """Hand everything that is said to `voice` with its level of `logging`; None: print it again."""
    global _voice  # noqa: PLW0603  # there is one standard error
    _voice = voice


@contextlib.contextmanager
def _bar(label: str, total: float | None) -> Iterator[Advance]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if total is not None and total < 1e6 else TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total, note="")

        def advance(n: float = 1, note: str | None = None) -> None:
            bar.advance(task, n)
            if note is not None:
                bar.update(task, note=note)

        yield advance


@contextlib.contextmanager
def _plain(label: str, total: float | None) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0.0
    # The pace is taken from the first report on: what comes before it (loading, resuming) is not repeated.
    paced_from: tuple[float, float] | None = None
    spoke = False

    def advance(n: float = 1, note: str | None = None) -> None:
        nonlocal done, last, paced_from, spoke
        done += n
        now = time.monotonic()
        paced_from = paced_from or (now, done)
        if now - last < _PLAIN_INTERVAL_S:
            return
        last, spoke = now, True
        elapsed = now - started
        since, before = paced_from
        if total and done > before:
            left = f"{100 * done / total:3.0f}%, {(now - since) * (total - done) / (done - before):.0f} s left"
        else:
            left = f"{elapsed:.0f} s"
        say(f"{label}: {left}{', ' + note if note else ''}")

    yield advance
    if spoke:
        say(f"{label}: done in {time.monotonic() - started:.0f} s")
