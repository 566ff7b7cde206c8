"""Becomes another program that the kernel kills when its parent dies; run as a file, without importing any package.

    python launch.py PARENT STACK_BYTES PROGRAM ARGUMENT…

`subprocess`'s own `preexec_fn` would do it without the 20 ms that this interpreter takes to start, but it runs Python
between fork and exec, which may deadlock in a process that has threads, and the supervisor has.

The kernel watches the thread that forked, not the process: only the supervisor's main thread may start children.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the program."""
    parent, stack_bytes, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    _raise_stack_limit(int(stack_bytes))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  # that is the point


def _raise_stack_limit(wanted: int) -> None:
    """Triton's parser recurses; 0 leaves the limit as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
