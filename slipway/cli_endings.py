"""How a command ends: whatever it raises becomes one line on stderr and an exit code of `slipway.errors`.

Only what nobody can mend keeps its traceback. Signals end a command by an exception, so that everything on the way out
cleans up behind itself.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import gettempdir
from types import FrameType

import click

from slipway.errors import EXIT_INTERRUPTED, EXIT_INVALID, SlipwayError
from slipway.places import is_full_disk
from slipway.progress import complain

EXTRAS = {
    "torch": "train", "transformers": "train", "accelerate": "train", "sklearn": "train", "datasets": "train",
    "safetensors": "train", "huggingface_hub": "train", "optimum": "export", "onnx": "export",
    "onnxruntime": "serve", "tokenizers": "serve",
    "openvino": "serve", "nncf": "export", "pytriton": "serve", "envoy": "serve", "psutil": "serve",
    "tritonclient": "serve", "locust": "loadtest", "matplotlib": "report", "jinja2": "report",
    "opentelemetry": "otel", "presidio_analyzer": "privacy", "pythonjsonlogger": "serve",
    "grpc": "serve", "google": "serve", "aiohttp": "loadtest", "gevent": "loadtest", "markupsafe": "report",
    "jsonschema": "deploy", "obstore": "serve", "grafana_foundation_sdk": "dev",
}  # fmt: skip
"""Libraries that not every installation has, and the extra that brings each."""


class _Terminated(BaseException):
    """SIGTERM."""


def ending(command: Callable[[], object]) -> int:  # noqa: PLR0911  # one return per kind of ending
    """Exit code of `command`: the one that it returns, if it returns one, or that of its error, which is printed."""
    try:
        with _signals_unwind():
            code = command()
    except click.ClickException as error:
        error.show()
        return EXIT_INVALID
    except SlipwayError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _forget_interrupt()
        return _fail("interrupted; nothing half-written was left behind.", EXIT_INTERRUPTED)
    except _Terminated:
        return _fail("terminated; nothing half-written was left behind.", 128 + signal.SIGTERM)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(f"this command needs {error.name}; install it with: pip install 'slipway[{extra}]'", EXIT_INVALID)
    except Exception as error:
        if is_full_disk(error):
            return _fail(f"no space left on device{_place_of(error)}; nothing half-written was kept.", EXIT_INVALID)
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}.", EXIT_INVALID)
        raise
    # What a command returns, or the code that it left with (--help, --version).
    return code if isinstance(code, int) else 0


def _place_of(error: Exception) -> str:
    """Where a disk is full, as far as is known: a copy names its source first, a write names nothing."""
    written = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    return (
        f" while writing {written}" if written else f"; free some where the output goes, or in {gettempdir()} (TMPDIR)"
    )


def _fail(message: str, code: int) -> int:
    complain(message)
    return code


def _forget_interrupt() -> None:
    """Let `python -m slipway` end with its exit code.

    CPython remembers an interrupt that left the execution of a text (a dataclass was being made) and then, started
    with `-m`, ends by SIGINT instead, whoever caught it meanwhile. Executing another text makes it forget.
    """
    exec("")  # noqa: S102


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let SIGTERM and SIGINT end what runs by an exception.

    A script's background job (`slipway serve … &`) inherits an ignored SIGINT, and Python leaves it ignored; whoever
    sends one to this process by name means it.
    """

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    handlers = {signal.SIGTERM: unwind, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
