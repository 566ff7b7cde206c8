"""Iterables in batches, several in flight, results in order.

Nothing is read ahead of what is in flight, so a source may be endless and memory is bounded by `in_flight` batches. If
the source fails, what it gave before is answered first; if a batch fails, so are those before it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def batches(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """Lists of `size` items, the last one perhaps shorter."""
    batch: list[A] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def batches_async(items: Iterable[A] | AsyncIterable[A], size: int) -> AsyncIterator[list[A]]:
    """`batches`, of either kind of iterable."""
    if isinstance(items, Iterable):
        for batch in batches(items, size):
            yield batch
        return
    batch = []
    try:
        async for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def in_order(function: Callable[[A], B], items: Iterable[A], in_flight: int) -> Generator[B, None, None]:
    """`function` of each item, in order, at most `in_flight` of them begun and not yet given out.

    Items are taken in the caller's thread; leaving the loop drops what has not begun and waits for nothing.
    """
    source = iter(items)
    waiting: deque[Future[B]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="slipway client")
    try:
        open_ended = True
        while True:
            while open_ended and len(waiting) < in_flight:
                try:
                    waiting.append(pool.submit(function, next(source)))
                except StopIteration:
                    open_ended = False
                except Exception as error:
                    open_ended, failure = False, error
            if not waiting:
                break
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failure is not None:
        raise failure


async def in_order_async(
    function: Callable[[A], Awaitable[B]], items: AsyncIterator[A], in_flight: int
) -> AsyncGenerator[B, None]:
    """`in_order`, for asyncio; leaving the loop cancels what is in flight."""
    waiting: deque[asyncio.Future[B]] = deque()
    failure: Exception | None = None
    try:
        open_ended = True
        while True:
            while open_ended and len(waiting) < in_flight:
                try:
                    waiting.append(asyncio.ensure_future(function(await anext(items))))
                except StopAsyncIteration:
                    open_ended = False
                except Exception as error:
                    open_ended, failure = False, error
            if not waiting:
                break
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting, return_exceptions=True)
    if failure is not None:
        raise failure
