"""Locust in a process that can't outlive the one that started it: `python -P launch.py PARENT_PID LOCUST_ARGUMENTS…`.

The kernel kills it when its parent ends, however that ends. Setting this in the child, before anything heavy is
imported, needs no code between fork and exec, which isn't safe in a parent with threads. A script and not
`-m loadtests.launch`, so that nothing else of this package is imported before that.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process's life to the parent's, then become Locust."""
    parent = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the call above; then nobody would send the signal.
    if os.getppid() != parent:
        sys.exit(1)
    from locust.main import main as locust

    locust()


if __name__ == "__main__":
    main()
