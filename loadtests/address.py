"""Where load may go: to this machine, unless the caller insists.

Open-loop load doesn't slow down when the other side suffers; pointed at somebody else's machine by a typo it is an
attack. So a name must resolve to loopback addresses only, and everything after that uses the number that was checked.
"""

import ipaddress
import re
import socket

from slipway.errors import LoadTestError

_ADDRESS = re.compile(
    r"(?:(?P<scheme>http|https|grpc|grpcs)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):(?P<port>\d{1,5})/?"
)


def resolve(address: str, *, allow_remote: bool = False) -> str:
    """`host:port` (or `https://host:port`) as `number:port`, the number in brackets when IPv6.

    Raises `LoadTestError` if it is no address, doesn't resolve, or isn't this machine and `allow_remote` is False.
    """
    match = _match(address)
    host = match["host"].strip("[]")
    try:
        found = socket.getaddrinfo(host, int(match["port"]), type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadTestError(f"The host of {address} can't be resolved: {error.strerror}.") from error
    # An IPv6 scope (`fe80::1%eth0`) is no part of the number.
    numbers = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    remote = next((number for number in numbers if not number.is_loopback), None)
    if remote is not None and not allow_remote:
        raise LoadTestError(
            f"{address} is {remote}, not this machine. Load that doesn't wait for answers is an attack on a server "
            "that isn't yours; if it is yours, say --allow-remote."
        )
    # `localhost` often names both families and servers listen on IPv4 only.
    number = min(numbers, key=lambda candidate: candidate.version)
    return f"{number if number.version == 4 else f'[{number}]'}:{match['port']}"


def tls_host(address: str) -> str | None:
    """The host whose certificate an https:// (or grpcs://) address expects; None without TLS."""
    match = _match(address)
    return match["host"].strip("[]") if match["scheme"] in ("https", "grpcs") else None


def _match(address: str) -> re.Match[str]:
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise LoadTestError(
            f"{address!r} is not an address to test; allowed: host:port, for example 127.0.0.1:8080, or "
            "https://host:port."
        )
    return match
