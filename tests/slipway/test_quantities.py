"""Quantities on the command line carry their unit."""

import click
import pytest

from slipway.quantities import FiniteRange, Megabytes, Milliseconds, Quantity, Seconds

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Milliseconds(), "5ms", 5.0),
        (Milliseconds(), "5", 5.0),
        (Milliseconds(), "0.5 s", 500.0),
        (Megabytes(), "8MB", 8.0),
        (Megabytes(), "1GB", 1000.0),
        (Seconds(), "10m", 600.0),
        (Seconds(), ".5h", 1800.0),
    ],
)
def test_a_number_with_a_unit_is_read(kind: Quantity, text: str, value: float) -> None:
    assert kind.convert(text, None, None) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "fast", "-5ms", "0ms", "5 parsecs", "1e400", "nanms", "5ms5", "五ms"])
def test_anything_else_is_refused_with_the_units_that_there_are(text: str) -> None:
    with pytest.raises(click.BadParameter, match="us, ms, s"):
        Milliseconds().convert(text, None, None)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "many"])
def test_a_range_has_neither_nan_nor_infinity(text: str) -> None:
    assert FiniteRange(0).convert("2.5", None, None) == 2.5
    with pytest.raises(click.BadParameter):
        FiniteRange(0).convert(text, None, None)
