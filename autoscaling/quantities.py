"""Kubernetes' quantities: 1500m, 1.5, 2k, 1e3, 1Ki → thousandths, as the autoscaler's controller takes them.

Source: `resource.Quantity` of k8s.io/apimachinery.
"""

import re
from decimal import Decimal
from typing import Any

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,3})|([numkMGTPE]?|[KMGTPE]i))")
_MAX_INT64 = 2**63 - 1


def exact(quantity: Any) -> Decimal:
    """A quantity as a number; raises `ValueError` if it is none."""
    found = _QUANTITY.fullmatch(str(quantity)) if isinstance(quantity, str | int | float) else None
    if found is None or isinstance(quantity, bool):
        raise ValueError(f"{quantity!r} is no quantity, such as 1500m, 1.5 or 2k")
    number, exponent, suffix = found.groups()
    return Decimal(number).scaleb(int(exponent)) if exponent else Decimal(number) * _SUFFIXES[suffix]


def milli(quantity: Any) -> int:
    """A quantity in thousandths, rounded up as the API does and at most what 64 bits hold; raises as `exact`."""
    value = exact(quantity) * 1000
    return min(int(value.to_integral_value(rounding="ROUND_CEILING")), _MAX_INT64)
