"""The part of `triton_python_backend_utils` that observers use, without Triton: what was counted and logged."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class CountingTriton:
    """Stands for the module; `values` are the counters by name and labels."""

    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    messages: int = 0
    warnings: list[str] = field(default_factory=list)
    failing: bool = False

    @property
    def MetricFamily(self) -> Any:  # noqa: N802  # the name is Triton's
        triton = self

        class Metric:
            def __init__(self, key: tuple[str, tuple[tuple[str, str], ...]]) -> None:
                self._key = key
                triton.values.setdefault(key, 0.0)

            def increment(self, amount: float) -> None:
                if triton.failing:
                    raise RuntimeError("Triton is busy")
                triton.messages += 1
                triton.values[self._key] += amount

        class Family:
            COUNTER = "counter"

            def __init__(self, name: str, description: str, kind: str) -> None:
                assert kind == "counter"
                assert description
                self._name = name

            def Metric(self, labels: dict[str, str]) -> Any:  # noqa: N802
                return Metric((self._name, tuple(sorted(labels.items()))))

        return Family

    @property
    def Logger(self) -> Any:  # noqa: N802
        triton = self

        class Logger:
            @staticmethod
            def log_warn(message: str) -> None:
                triton.warnings.append(message)

        return Logger

    def value(self, name: str, **labels: str) -> float:
        """The sum of the counters of that name that have `labels`."""
        found = [
            value
            for (found, has), value in self.values.items()
            if found == name and labels.items() <= dict(has).items()
        ]
        assert found, f"there is no {name}{labels}"
        return sum(found)
