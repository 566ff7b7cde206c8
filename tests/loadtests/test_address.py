"""Where load may go."""

import pytest

from loadtests.address import resolve
from slipway.errors import LoadTestError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
        ("localhost:80", "127.0.0.1:80"),
        ("[::1]:8080", "[::1]:8080"),
        ("127.9.8.7:1", "127.9.8.7:1"),
        ("https://127.0.0.1:443", "127.0.0.1:443"),
    ],
)
def test_addresses_of_this_machine_become_numbers(address: str, number: str) -> None:
    assert resolve(address) == number


@pytest.mark.parametrize("address", ["192.0.2.1:8080", "[2001:db8::1]:8080", "0.0.0.0:8080", "http://192.0.2.1:80"])
def test_another_machine_is_refused_unless_insisted_upon(address: str) -> None:
    with pytest.raises(LoadTestError, match=r"not this machine.*--allow-remote"):
        resolve(address)
    assert resolve(address, allow_remote=True)


@pytest.mark.parametrize(
    "address",
    ["", "localhost", ":8080", "127.0.0.1:0", "127.0.0.1:99999", "ftp://127.0.0.1:1", "user@host:1", "a b:1"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(LoadTestError, match=r"not an address to test; allowed: host:port"):
        resolve(address)


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(LoadTestError, match=r"The host of nowhere\.invalid:80 can't be resolved"):
        resolve("nowhere.invalid:80")
