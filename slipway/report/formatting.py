"""Numbers as a person reads them: as many digits as the measurement has, a dash where there is no number."""

import math

DASH = "–"


def whole(value: float | None) -> str:
    """`23703` → `23,703`."""
    return DASH if _missing(value) else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """`0.7203` → `72.0%`."""
    return DASH if value is None or _missing(value) else f"{100 * value:.{digits}f}%"


def score(value: float | None) -> str:
    """A metric between 0 and 1 (or -1 and 1): `0.7051` → `0.705`."""
    if value is None or _missing(value):
        return DASH
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def points(value: float | None) -> str:
    """Hundredths of a metric, signed: `0.42` → `+0.42`."""
    if value is None or _missing(value):
        return DASH
    return f"{value:+.2f}".replace("-", "−") if round(value, 2) else "0.00"


def milliseconds(value: float | None) -> str:
    """Three significant digits or so: `0.82`, `6.2`, `22.0`, `143`, `9,800`."""
    if value is None or _missing(value):
        return DASH
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def megabytes(size: float | None) -> str:
    """Bytes in MB of 10⁶."""
    if not size or _missing(size):
        return DASH
    return f"{size / 1e6:.2f}" if size < 1e6 else f"{size / 1e6:.1f}" if size < 1e9 else f"{size / 1e6:,.0f}"


def ratio(larger: float | None, smaller: float | None) -> str:
    """`90.9, 23.1` → `3.9`; a dash if one is unknown."""
    if not larger or not smaller or _missing(larger) or _missing(smaller):
        return DASH
    return f"{larger / smaller:.1f}"


def resized(before: float | None, after: float | None) -> tuple[str, str]:
    """By which factor, and which way: `90.9, 23.1` → `3.9`, `smaller`; `1.0, 1.2` → `1.2`, `larger`.

    The way is empty where no digit tells them apart (`1.0`), or one is unknown (a dash).
    """
    larger = bool(before and after and after > before)
    factor = ratio(after, before) if larger else ratio(before, after)
    return factor, "" if factor in (DASH, "1.0") else "larger" if larger else "smaller"


def rate(value: float) -> str:
    """Requests/s without needless zeros: `20.0` → `20`."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """`93` → `1 min 33 s`."""
    if value is None or _missing(value):
        return DASH
    whole_seconds = round(value)
    if value < 10:
        return f"{value:.2g} s"
    hours, rest = divmod(whole_seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(part for part in parts if part)


def compact(value: float) -> str:
    """A setting as a person would write it: `5e-05` → `5e-5`, `3.0` → `3`."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")


def plural(count: int, noun: str) -> str:
    """`1, "thread"` → `1 thread`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


METRIC_NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "mcc": "MCC", "ece": "ECE"}


def metric_name(key: str) -> str:
    """`macro_f1` → `macro-F1`."""
    return METRIC_NAMES.get(key, key)


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
