"""Errors for the person who must act: one line that says what was wrong, where, what is allowed and what to try.

Every error that a user can cause or mend is a `SlipwayError`; the command line prints its message without a traceback
and exits with its code. Anything else is a bug and keeps its traceback.

Exit codes: 0 done, 1 something must be changed, 2 a service-level objective was missed or a new version rolled back,
3 there is no result to stand on (no variant passed the export gate, or a load test is invalid), 130 interrupted, 143
ended by SIGTERM.
"""

EXIT_INVALID = 1
EXIT_SLO_MISSED = 2
EXIT_GATE_FAILED = 3
EXIT_INVALID_RUN = 3
EXIT_INTERRUPTED = 130


class SlipwayError(Exception):
    """Base of all errors that a user can act on; `str()` of it is the whole message."""

    exit_code = EXIT_INVALID


class RecipeError(SlipwayError):
    """The recipe can't be read, or says something that is not allowed."""


class AssetError(SlipwayError):
    """A referenced model or data set can't be had, or isn't what its digest says."""


class DataError(SlipwayError):
    """The table can't be learned from: a missing column, no rows, one class, bytes that are not UTF-8."""


class ArtifactError(SlipwayError):
    """A directory is not the artifact it should be, or one of its files changed since it was written."""


class TrainingError(SlipwayError):
    """Fine-tuning can't start or go on."""


class ExportError(SlipwayError):
    """The checkpoint can't be turned into a bundle."""


class GateError(ExportError):
    """No variant is as accurate, as faithful and as fast as the recipe asks."""

    exit_code = EXIT_GATE_FAILED


class ServingError(SlipwayError):
    """The endpoint can't start, or one of its processes ended."""


class LoadTestError(SlipwayError):
    """The load can't be driven."""


class InvalidRunError(LoadTestError):
    """The load was driven, but its figures say nothing about the server."""

    exit_code = EXIT_INVALID_RUN


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, without a full stop; its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
