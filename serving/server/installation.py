"""Which Triton runs: the one in the wheel `nvidia-pytriton`, or one of one's own that `SLIPWAY_TRITON` names.

The wheel carries the `tritonserver` binary and the Python backend for CPUs; its Python API is not used, because an
ordinary model repository is what runs in the production image, too. One's own is a directory laid out as NVIDIA's image
has it at /opt/tritonserver:

    bin/tritonserver
    backends/python/       libtriton_python.so, triton_python_backend_stub, triton_python_backend_utils.py
    backends/onnxruntime/  and others, as they are: in C++, or a `model.py`
    lib/                   libraries, if it has any

What both need, each found the hard way:

- The stub finds its packages through the first `python3` on PATH; PYTHONPATH is ignored. It has one version of CPython
  built in, and that must be the one that runs this.
- The wheel's backend folder has to be assembled, of copies, not links, of the library, its utilities and the stub for
  the running Python. One's own is used where it lies; the stub alone leaves a `__pycache__` in it, if it may.
- A backend written in Python is a folder of its name with a `model.py`; the wheel's `onnxruntime` and `openvino` are
  such, each of their instances a process. In C++ they are part of the server.
"""

import ctypes.util
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slipway.errors import ServingError

if TYPE_CHECKING:  # the supervisor must be up in a moment
    from serving.repository import Repository
    from serving.repository.plan import TargetName

VARIABLE = "SLIPWAY_TRITON"
"""Environment variable with the directory of a Triton of one's own."""

_PYTHON = "python"
_LIBRARY, _UTILITIES, _STUB = "libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"
_ENCODER_BACKENDS = ("onnxruntime", "openvino")
_ENCODER_PY = '''"""Triton loads this file as the backend of its folder's name; the backend is the tested package."""

from serving.model.encoder import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_LAYOUT = "it must be laid out as /opt/tritonserver of NVIDIA's image is"


@dataclass(frozen=True)
class Installation(ABC):
    """A Triton on this machine, at `root`, an absolute path."""

    root: Path
    uses_gpus: ClassVar[bool]

    @property
    def program(self) -> Path:
        """`tritonserver`."""
        return self.root / "bin" / "tritonserver"

    @property
    @abstractmethod
    def directory(self) -> str:
        """Of one's own; empty for the wheel's. `installed` makes the same one of it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For people."""

    @property
    @abstractmethod
    def libraries(self) -> Path:
        """Directory with what the program is linked against."""

    @abstractmethod
    def stage(self, runtime: Path) -> None:
        """Put what has to be assembled into the runtime directory; raises `ServingError` if a part is missing."""

    @abstractmethod
    def backends(self, runtime: Path) -> Path:
        """Where Triton finds its backends, after `stage`."""

    @abstractmethod
    def runs_in_processes(self, backend: str) -> bool:
        """Whether each instance of a model of `backend` is a process; raises `ServingError` if there is no such."""

    def environment(self) -> dict[str, str]:
        """What Triton and its stubs run with, over the environment of this process."""
        libraries = [str(self.libraries), _python_library_directory(), os.environ.get("LD_LIBRARY_PATH")]
        return {
            "PATH": os.pathsep.join([_python_directory(), os.environ.get("PATH", os.defpath)]),
            # An empty part would be the working directory.
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
            # Instances are the parallelism; a tokenizer with a thread for each core would only fight them.
            "TOKENIZERS_PARALLELISM": "false",
        }

    def require(self, repository: "Repository", target: "TargetName") -> None:
        """Raise `ServingError` unless this can serve the model that `repository` has for `target`."""
        path, spec = repository.artifact.path, repository.spec
        if target not in spec.targets and target == "cpu":
            raise ServingError(
                f"{path} has a model for GPUs only; serve it with serve.target: gpu by a Triton of your own "
                f"({VARIABLE}), or export a model with --target cpu."
            )
        if target not in spec.targets:
            raise ServingError(f"{path} has no model for GPUs; export one with --target gpu, or set serve.target: cpu.")
        if target == "gpu" and not self.uses_gpus:
            raise ServingError(
                f"serve.target is gpu, and {self.name} runs on CPUs; set {VARIABLE} to the directory of a Triton for "
                "GPUs, which is /opt/tritonserver in NVIDIA's image."
            )
        if spec.layout == "ensemble":
            self.runs_in_processes(repository.bundle.targets[target].engine)


class Embedded(Installation):
    """The one in the wheel `nvidia-pytriton`."""

    uses_gpus = False

    @classmethod
    def find(cls) -> "Embedded":
        """Raises `ModuleNotFoundError` if the wheel is not installed."""
        found = importlib.util.find_spec("pytriton")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'pytriton'", name="pytriton")
        return cls(Path(found.submodule_search_locations[0]) / "tritonserver")

    @property
    def directory(self) -> str:
        """None that anybody would name."""
        return ""

    @property
    def name(self) -> str:
        """By the wheel."""
        import importlib.metadata

        return f"the Triton of nvidia-pytriton {importlib.metadata.version('nvidia-pytriton')}"

    @property
    def libraries(self) -> Path:
        """Those that were packed with the wheel."""
        return self.root.parent.parent / "nvidia_pytriton.libs"

    def stage(self, runtime: Path) -> None:
        """Assemble the Python backend for this Python, and the encoder's backends, which are written in it."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self.root / "python_backend_stubs" / version / _STUB
        if not stub.is_file():
            raise ServingError(f"this Triton has no Python backend for Python {version}; use 3.11 or 3.12.")
        backend = self.backends(runtime) / _PYTHON
        backend.mkdir(parents=True)
        library = self.root / "backends" / _PYTHON
        for file in (library / _LIBRARY, library / _UTILITIES, stub):
            shutil.copy(file, backend / file.name)
        for name in _ENCODER_BACKENDS:
            (self.backends(runtime) / name).mkdir()
            (self.backends(runtime) / name / "model.py").write_text(_ENCODER_PY, encoding="utf-8")

    def backends(self, runtime: Path) -> Path:
        """Of this endpoint."""
        return runtime / "backends"

    def runs_in_processes(self, backend: str) -> bool:  # noqa: ARG002
        """All of them."""
        return True


class Own(Installation):
    """One's own."""

    uses_gpus = True

    @property
    def directory(self) -> str:
        """Where it is."""
        return str(self.root)

    @property
    def name(self) -> str:
        """By where it is."""
        return f"the Triton at {self.root}"

    @property
    def libraries(self) -> Path:
        """As in NVIDIA's image; it need not be there."""
        return self.root / "lib"

    def stage(self, runtime: Path) -> None:
        """Nothing but to look whether all is there, and for this Python."""
        if not self.root.is_dir():
            raise ServingError(f"{VARIABLE} is {self.root}, which is not a directory; {_LAYOUT}.")
        backend = self.backends(runtime) / _PYTHON
        for file in (self.program, *(backend / name for name in (_LIBRARY, _UTILITIES, _STUB))):
            if not file.is_file():
                raise ServingError(f"{VARIABLE} is {self.root}, which has no {file.relative_to(self.root)}; {_LAYOUT}.")
        for file in (self.program, backend / _STUB):
            if not os.access(file, os.X_OK):
                raise ServingError(f"{file} can't be executed by this user; {VARIABLE} names the Triton that it is of.")
        built_for, running = _python_of(backend / _STUB), f"{sys.version_info.major}.{sys.version_info.minor}"
        if built_for not in (None, running):
            raise ServingError(
                f"the Python backend of {self.root} is for Python {built_for}, and this is {running}; install Slipway "
                f"with Python {built_for}, or put a stub that was built for {running} into {backend}."
            )

    def backends(self, runtime: Path) -> Path:  # noqa: ARG002
        """Its own, as they are."""
        return self.root / "backends"

    def runs_in_processes(self, backend: str) -> bool:
        """Whether it is written in Python and not in C++."""
        folder = self.root / "backends" / backend
        if (folder / f"libtriton_{backend}.so").is_file():
            return backend == _PYTHON
        if (folder / "model.py").is_file():
            return True
        raise ServingError(
            f"{self.name} has no backend {backend!r}, which an encoder of this repository runs on; use "
            "serve.layout: fused, or a Triton that has it."
        )


def chosen() -> Installation:
    """The one that the environment names; the wheel's if it names none."""
    return installed(os.environ.get(VARIABLE, ""))


def installed(directory: str) -> Installation:
    """The one at `directory`; the wheel's if that is empty."""
    return Own(Path(directory).absolute()) if directory else Embedded.find()


def _python_of(stub: Path) -> str | None:
    """Version of CPython that a stub is linked against; None if it doesn't show."""
    found = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes())
    return found[1].decode() if found else None


def _python_directory() -> str:
    directory = Path(sys.executable).parent
    if not (directory / "python3").exists():
        raise ServingError(f"{directory} has no python3, which Triton's Python backend looks for.")
    return str(directory)


def _python_library_directory() -> str | None:
    """Where this Python's shared library is; None if the system's linker knows."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directory = sysconfig.get_config_var("LIBDIR")
    if directory and (Path(directory) / f"lib{name}.so.1.0").exists():
        return str(directory)
    if ctypes.util.find_library(name):
        return None
    raise ServingError(
        f"lib{name}.so.1.0 is not installed, which Triton's Python backend needs; "
        f"on Debian or Ubuntu: apt install lib{name}, or use a Python that was built with --enable-shared."
    )
