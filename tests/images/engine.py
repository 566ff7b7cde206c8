"""buildah and podman with a storage of their own. No cgroups are asked for: the machine may have none to give.

Containers get what a pod gets under the restricted Pod Security Standard, and less: no network but the loopback.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
EPOCH = "1700000000"

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{root}/images"
runroot = "{root}/run"
"""
_CONTAINERS = """\
[containers]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
# In a file of the root, rather than in shared memory that nobody removes.
lock_type = "file"
runtime = "crun"
"""
_RESTRICTED = (
    "--read-only",
    "--read-only-tmpfs=false",
    # An emptyDir can be executed from, and Triton's stub is.
    "--tmpfs=/tmp:rw,exec,nosuid,nodev,size=1g,mode=1777",
    "--shm-size=256m",
    "--cap-drop=all",
    # podman asks for as much as there can be, which a root without CAP_SYS_RESOURCE may not give.
    "--ulimit=nofile=4096:4096",
    "--ulimit=nproc=4096:4096",
    "--security-opt=no-new-privileges",
)
_HYBRID = Path("/sys/fs/cgroup/unified")
_WITHOUT_HYBRID = ("unshare", "--mount", "sh", "-c", f'umount {_HYBRID} && exec "$@"', "sh")
"""crun takes no machine that has both versions of cgroups, also where it is to use none; so it is shown one."""


class Engine:
    """Images and containers below `root`; `close` removes them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "storage.conf").write_text(_STORAGE.format(root=root))
        (root / "containers.conf").write_text(_CONTAINERS)
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(root / "storage.conf"),
            "CONTAINERS_CONF": str(root / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What a command of theirs says; fails with its last words."""
        runs = command[0] == "podman" and command[1] != "image"
        around = _WITHOUT_HYBRID if runs and _HYBRID.is_mount() else ()
        whole = [*around, *(str(part) for part in command)]
        done = subprocess.run(whole, env=self._environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        return done

    def build(
        self,
        containerfile: Path,
        tag: str,
        *options: object,
        context: Path = REPOSITORY,
        arguments: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Build as images/README.md says; returns the image's digest."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        self.run(
            "buildah", "build", "--quiet", "--network=host", "--identity-label=false",
            f"--timestamp={EPOCH}", f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}",
            "--file", containerfile, "--tag", tag, *given, *options, context,
        )  # fmt: skip
        return str(self.inspect(tag)["Digest"])

    def inspect(self, image: str) -> dict[str, Any]:
        """What podman knows of an image."""
        found: dict[str, Any] = json.loads(self.run("podman", "image", "inspect", image).stdout)[0]
        return found

    @contextlib.contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Its files."""
        yield Path(self.run("podman", "image", "mount", image).stdout.strip())
        self.run("podman", "image", "unmount", image)

    @contextlib.contextmanager
    def container(
        self, image: str, *command: object, options: tuple[str, ...] = (), network: str = "none"
    ) -> Iterator["Container"]:
        """One that runs `command` with no more rights than it needs; it is removed, whatever becomes of it."""
        run = ("podman", "run", "--detach", f"--network={network}", *_RESTRICTED, *options, image, *command)
        container = Container(self, self.run(*run).stdout.strip())
        try:
            yield container
        finally:
            self.run("podman", "rm", "--force", "--time=0", container.id)

    def close(self) -> None:
        """Remove everything."""
        self.run("podman", "rm", "--all", "--force", "--time=0", check=False)
        self.run("buildah", "rm", "--all", check=False)
        self.run("podman", "image", "unmount", "--all", "--force", check=False)
        self.run("umount", self._root / "images" / "overlay", check=False)
        self.run("rm", "-rf", "--one-file-system", self._root, check=False)


@dataclass(frozen=True)
class Container:
    """A container of `engine`."""

    engine: Engine
    id: str

    def python(self, code: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `code` in it with the image's own Python."""
        return self.engine.run("podman", "exec", self.id, "python", "-c", code, *arguments, check=check)

    def logs(self) -> str:
        """What it has said."""
        said = self.engine.run("podman", "logs", self.id, check=False)
        return said.stdout + said.stderr

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.engine.run("podman", "inspect", "--format={{.State.Running}}", self.id).stdout.strip() == "true"

    def wait(self) -> int:
        """Its exit code, when it has one."""
        return int(self.engine.run("podman", "wait", self.id).stdout)
