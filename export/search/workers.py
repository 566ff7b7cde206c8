"""Several jobs at a time, each in a process of its own, or one after another in this one.

Processes rather than threads: a quantizer holds the interpreter most of the time, and engines take their thread counts
per process. They are spawned, not forked, since a fork of a process that has run PyTorch or an engine can hang in their
thread pools.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from slipway.errors import ExportError
from slipway.places import is_full_disk
from slipway.progress import progress

Key = TypeVar("Key")
Result = TypeVar("Result")


def run_jobs(jobs: Mapping[Key, Callable[[], Result]], workers: int) -> Iterator[tuple[Key, Result | ExportError]]:
    """Each job's result, or the `ExportError` that it raised, as they end. Jobs and results must be picklable.

    A full disk is no job's own failure: it is raised, and ends the others.
    """
    if workers == 1 or len(jobs) <= 1:
        for key, job in jobs.items():
            with progress(f"Making {key}"):
                result = _outcome(job)
            yield key, result
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        try:
            futures = {pool.submit(_outcome, job): key for key, job in jobs.items()}
            with progress("Making variants", len(jobs)) as advance:
                for future in as_completed(futures):
                    advance()
                    yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(job: Callable[[], Result]) -> Result | ExportError:
    try:
        return job()
    except ExportError as error:
        # Here, as an error that is returned to another process arrives without its cause.
        if is_full_disk(error):
            raise
        return error
