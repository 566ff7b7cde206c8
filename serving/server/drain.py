"""Ending without cutting anyone off: first say so, then stop accepting, then wait for what was accepted.

1. *Announce.* Health fails, so that whatever balances load looks elsewhere; every answer from now on says
   `Connection: close` (GOAWAY over HTTP/2), so that clients which keep connections leave by themselves. New
   connections are still accepted: a client that was told to close will open another before it knows better. This
   lasts a moment, or until nobody is connected.
2. *Close.* The listener closes; new connections are refused. Requests under way, and those that still come over a
   connection that is kept, are answered. This lasts until none is left, at most until the grace time is over.

Closing at once would be quicker and loses what a client has already sent over a connection that the kernel accepted
but Envoy has not. A connection that is idle at the end is closed; a client that sends a request in that very moment
gets no answer to it, as with every HTTP/1.1 server that ends.
"""

import time
from collections.abc import Callable

from serving.server.envoy_admin import SILENT, EnvoyAdmin, Traffic

_ANNOUNCED_S = 1.0
_QUIET_S = 0.15
"""No request was seen for so long: what Envoy has answered has left its buffers."""
_POLL_S = 0.03


class Drain:
    """Drains the front door that `admin` asks; `is_running` says whether there still is one."""

    def __init__(self, admin: EnvoyAdmin, is_running: Callable[[], bool]) -> None:
        self._admin = admin
        self._is_running = is_running

    def run(self, grace_s: float) -> bool:
        """Whether every request that was accepted has been answered within `grace_s`."""
        deadline = time.monotonic() + grace_s
        announced_until = min(deadline, time.monotonic() + min(_ANNOUNCED_S, grace_s / 2))
        self._order(self._admin.announce_end, deadline)
        while time.monotonic() < announced_until and self._is_running() and self._is_anyone_there():
            time.sleep(_POLL_S)
        self._order(self._admin.stop_accepting, deadline)
        return self.is_answered(deadline)

    def is_answered(self, deadline: float) -> bool:
        """Wait until no request is under way; False if some still are at `deadline` (of the monotonic clock)."""
        quiet_since = time.monotonic()
        while self._is_running():
            now, traffic = time.monotonic(), self._traffic()
            if traffic is None or traffic.requests:
                quiet_since = now
            elif not traffic.connections or now - quiet_since > _QUIET_S:
                return True
            if now > deadline:
                return False
            time.sleep(_POLL_S)
        return False

    def _order(self, order: Callable[[], None], deadline: float) -> None:
        """Give an order to an Envoy that may be too busy to take it at once."""
        while self._is_running():
            try:
                return order()
            except SILENT:
                if time.monotonic() > deadline:
                    return None
                time.sleep(_POLL_S)
        return None

    def _is_anyone_there(self) -> bool:
        traffic = self._traffic()
        return traffic is None or traffic.connections > 0

    def _traffic(self) -> Traffic | None:
        try:
            return self._admin.traffic()
        except SILENT:
            return None
