"""A HorizontalPodAutoscaler's manifest, read as the API would take it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaling.hpa import DEFAULT_DOWN, DEFAULT_UP, Behavior
from autoscaling.manifest import Scaler, Target
from autoscaling.quantities import milli
from slipway.errors import SlipwayError

pytestmark = [pytest.mark.unit]


def pods(**target: Any) -> dict[str, Any]:
    return {"type": "Pods", "pods": {"metric": {"name": "in_flight"}, "target": target}}


def hpa(*metrics: dict[str, Any], version: str = "v2", **spec: Any) -> dict[str, Any]:
    whole = {"maxReplicas": 10, **({"metrics": list(metrics)} if metrics else {}), **spec}
    return {"apiVersion": f"autoscaling/{version}", "kind": "HorizontalPodAutoscaler", "spec": whole}


def read(folder: Path, *documents: Any) -> Scaler:
    file = folder / "hpa.yaml"
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return Scaler.read(file)


def test_what_is_left_out_or_null_has_the_defaults_of_the_api(tmp_path: Path) -> None:
    bare = read(tmp_path, hpa())
    assert (bare.minimum, bare.maximum, bare.behavior) == (1, 10, None)
    [cpu] = bare.targets
    assert (cpu.name, cpu.percent) == ("cpu", 80)
    assert read(tmp_path, hpa(minReplicas=None, metrics=None, behavior=None)) == bare
    assert read(tmp_path, hpa(behavior={})).behavior == Behavior(DEFAULT_UP, DEFAULT_DOWN)
    nulls = {"scaleUp": None, "scaleDown": {"policies": None, "selectPolicy": None, "stabilizationWindowSeconds": None}}
    assert read(tmp_path, hpa(behavior=nulls)).behavior == Behavior(DEFAULT_UP, DEFAULT_DOWN)


@pytest.mark.parametrize("tolerance", [0.05, "0.05", "50m"])
def test_a_tolerance_is_a_quantity(tolerance: object, tmp_path: Path) -> None:
    found = read(tmp_path, hpa(behavior={"scaleUp": {"tolerance": tolerance}})).behavior
    assert found is not None
    assert (found.up.tolerance, found.down.tolerance) == (0.05, 0.1)


def test_v1_is_cpu(tmp_path: Path) -> None:
    [cpu] = read(tmp_path, hpa(version="v1", targetCPUUtilizationPercentage=50)).targets
    assert (cpu.name, cpu.percent) == ("cpu", 50)
    assert read(tmp_path, hpa(version="v1")).targets == read(tmp_path, hpa()).targets


def test_v2beta2_is_as_v2(tmp_path: Path) -> None:
    entry = pods(type="AverageValue", averageValue="1500m")
    assert read(tmp_path, hpa(entry, version="v2beta2")) == read(tmp_path, hpa(entry))
    assert read(tmp_path, hpa(entry)).targets == (Target("Pods", "in_flight", averages=True, milli=1500),)


def test_it_may_be_one_of_several_documents_or_in_a_list(tmp_path: Path) -> None:
    alone = read(tmp_path, hpa())
    assert read(tmp_path, {"kind": "Service"}, None, hpa()) == alone
    assert read(tmp_path, {"kind": "List", "items": [{"kind": "Service"}, hpa()]}) == alone


def test_an_object_has_a_value_or_an_average_as_its_type_says(tmp_path: Path) -> None:
    def entry(**target: Any) -> dict[str, Any]:
        return {"type": "Object", "object": {"metric": {"name": "rate"}, "target": target}}

    kinds = [entry(type="Value", value=3), entry(type="AverageValue", averageValue=3), entry(value=3)]
    assert [each.averages for each in read(tmp_path, hpa(*kinds)).targets] == [False, True, False]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "has no HorizontalPodAutoscaler"),
        ([hpa(), hpa()], "has 2 HorizontalPodAutoscalers"),
        ([{"kind": "HorizontalPodAutoscaler"}], "no spec"),
        ([{"kind": "HorizontalPodAutoscaler", "spec": "x"}], "no spec"),
        ([hpa(version="v2beta1")], "v2beta1 can't be replayed; `kubectl get"),
        (
            [hpa(version="v1") | {"metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[]"}}}],
            "v1 can't be replayed",
        ),
        ([hpa(maxReplicas=None)], "spec.maxReplicas"),
        ([hpa(minReplicas=11)], "minReplicas 11 is more than maxReplicas 10"),
        ([hpa(minReplicas=-1)], "spec.minReplicas: .* -1"),
        ([hpa({"type": "Carrots"})], r"spec\.metrics\.0\.type: .*'Carrots'"),
        ([hpa({"type": "Pods"})], "type Pods needs its pods"),
        ([hpa(pods(type="Value", value=3))], "needs averageValue"),
        ([hpa(pods(averageValue=0))], "averageValue: .*greater than 0"),
        ([hpa(pods(averageValue="4 pods"))], "averageValue: '4 pods' is no quantity"),
        ([hpa({"type": "Resource", "resource": {"name": "cpu", "target": {}}})], "needs averageUtilization or"),
        ([hpa(behavior={"scaleUp": {"policies": []}})], "spec.behavior.scaleUp.policies"),
        ([hpa(behavior={"scaleUp": {"tolerance": "much"}})], "'much' is no quantity"),
        ([hpa(behavior={"scaleSideways": {}})], "scaleSideways"),
        ([hpa(metrics={"a": 1})], "spec.metrics"),
    ],
)
def test_what_can_not_be_replayed_is_said_in_one_line(documents: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=message) as error:
        read(tmp_path, *documents)
    assert "hpa.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "\x00", "[" * 100_000])
def test_what_is_no_yaml_is_said_in_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "hpa.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SlipwayError, match=r"hpa\.yaml can't be read") as error:
        Scaler.read(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (3, 3000),
        ("3", 3000),
        (2.5, 2500),
        (1e-7, 1),
        ("1.5", 1500),
        (".5", 500),
        ("1400m", 1400),
        ("2k", 2_000_000),
        ("1T", 10**15),
        ("1Ki", 1_024_000),
        ("1Ti", 1000 * 2**40),
        ("100u", 1),
        ("1e3", 10**6),
        ("1E3", 10**6),
        ("1e-3", 1),
        ("-2", -2000),
        ("10E", 2**63 - 1),
        ("1e400", 2**63 - 1),
    ],
)
def test_quantities_are_thousandths(quantity: Any, expected: int) -> None:
    assert milli(quantity) == expected


@pytest.mark.parametrize(
    "quantity", ["", "many", "1K", "1_0", " 1", "1 ", "1e3k", "1e", "--1", "NaN", "Infinity", "1e9999", True, None, [1]]
)
def test_what_is_no_quantity_is_refused(quantity: Any) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        milli(quantity)
