"""How a protected endpoint is entered."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from loadtests.access import open_access
from loadtests.address import tls_host
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest

pytestmark = pytest.mark.unit


def section(**values: object) -> LoadTest:
    return LoadTest.model_validate(values)


def test_a_key_comes_from_the_environment_or_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret\n")
    (tmp_path / "key").write_text("other\n", encoding="utf-8")
    assert open_access(section(credentials={"environment": "MY_KEY"}), None).headers == {"x-api-key": "s3cret"}
    from_file = section(credentials={"file": str(tmp_path / "key"), "kind": "bearer"})
    assert open_access(from_file, None).headers == {"authorization": "Bearer other"}


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    load = section(credentials={"environment": "MY_KEY"})
    assert "s3cret" not in repr(open_access(load, None))
    assert "s3cret" not in load.model_dump_json()


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="no variable NOT_THERE; export it first"):
        open_access(section(credentials={"environment": "NOT_THERE"}), None)
    with pytest.raises(LoadTestError, match="can't be read"):
        open_access(section(credentials={"file": str(tmp_path / "none")}), None)


def test_two_lines_are_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a\nb", encoding="utf-8")
    with pytest.raises(LoadTestError, match="holds no usable secret"):
        open_access(section(credentials={"file": str(tmp_path / "key")}), None)


@pytest.mark.parametrize("credentials", [{}, {"environment": "A", "file": "b"}])
def test_a_secret_has_one_place(credentials: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="set environment or file"):
        section(credentials=credentials)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="is not a file"):
        open_access(section(tls={"ca": str(tmp_path / "ca.pem")}), "host")
    (tmp_path / "ca.pem").write_text("nonsense", encoding="utf-8")
    with pytest.raises(LoadTestError, match="certificates can't be used"):
        open_access(section(tls={"ca": str(tmp_path / "ca.pem")}), "host")


def test_an_address_says_whether_it_is_tls() -> None:
    assert tls_host("https://localhost:1") == "localhost"
    assert tls_host("grpcs://[::1]:1") == "::1"
    assert tls_host("http://localhost:1") is None
    assert tls_host("localhost:1") is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("s3cret".encode("utf-16"), "holds no usable secret: one line of ASCII is expected"),
        (b"caf\xe9", "holds no usable secret: one line of ASCII is expected"),
        (None, "can't be read: No such file or directory"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_in_a_line_of_our_own(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LoadTestError) as refused:
        open_access(section(credentials={"file": str(file)}), None)
    assert str(refused.value) == f"loadtest.credentials: {file} {why}."


def test_a_mark_in_front_of_a_secret_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfs3cret\r\n")
    assert open_access(section(credentials={"file": str(tmp_path / "key")}), None).headers == {"x-api-key": "s3cret"}
