"""Quantities on the command line, with their unit: `5ms`, `8MB`, `10m`. A bare number is in the option's own unit."""

import math
import re
from typing import Any, ClassVar

import click

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*")


class Quantity(click.ParamType[float]):
    """A number above zero and perhaps a unit, as a float in `own` unit."""

    name = "quantity"
    own: ClassVar[str]
    units: ClassVar[dict[str, float]]
    """Unit, in small letters → how many of the own unit it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The value in the own unit; fails with what is allowed."""
        if isinstance(value, (int, float)):
            return float(value)
        found = _QUANTITY.fullmatch(str(value))
        factor = self.units.get((found[2] or self.own).lower()) if found else None
        number = float(found[1]) * factor if found and factor is not None else 0.0
        if not number or not math.isfinite(number):
            units = ", ".join(sorted(self.units, key=lambda unit: self.units[unit]))
            self.fail(f"{value!r} is not a number above 0 with one of the units {units}.", param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """A number in a range, which neither NaN nor infinity is; click takes NaN for one in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; fails if it is none, not finite or out of the range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Milliseconds(Quantity):
    """A latency."""

    own = "ms"
    units: ClassVar[dict[str, float]] = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Megabytes(Quantity):
    """A size on disk; MB is 10^6 bytes."""

    own = "mb"
    units: ClassVar[dict[str, float]] = {"kb": 1e-3, "mb": 1.0, "mib": 1.048576, "gb": 1e3}


class Seconds(Quantity):
    """A duration."""

    own = "s"
    units: ClassVar[dict[str, float]] = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
