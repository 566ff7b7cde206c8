"""For every alert: series on which it fires, and series close to them on which it doesn't."""

from collections.abc import Iterator

from tests.helm.rules import NAMESPACE, POD, POD_LABELS, Case

FRONT = f'envoy_http_conn_manager_prefix="front",{POD_LABELS}'
OTHER_RELEASE = POD_LABELS.replace("reviews-slipway", "reviews-slipway-canary")
DEPLOYMENT = f'namespace="{NAMESPACE}",deployment="reviews-slipway"'
HPA = f'namespace="{NAMESPACE}",horizontalpodautoscaler="{{}}reviews-slipway"'
BLOCKED = f"envoy_http_adaptive_concurrency_gradient_controller_rq_blocked{{{FRONT}}}"


def answers(status: int, labels: str = FRONT) -> str:
    return f'envoy_http_downstream_rq_xx{{envoy_response_code_class="{status}",{labels}}}'


def latencies(le: str = "") -> str:
    if le:
        return f'envoy_http_downstream_rq_time_bucket{{le="{le}",{FRONT}}}'
    return f"envoy_http_downstream_rq_time_count{{{FRONT}}}"


def labelled(name: str, more: str = "") -> str:
    return f"{name}{{{more}{',' if more else ''}{POD_LABELS}}}"


def grpc(status: int) -> str:
    more = 'envoy_cluster_name="v1_grpc",envoy_grpc_bridge_service="inference"'
    return labelled(f"envoy_cluster_grpc_ModelInfer_{status}", more)


def each(step: float, times: int = 1000, start: float = 0) -> str:
    """A counter that grows by `step` with each sample."""
    return f"{start:g}+{step:g}x{times}"


def stays(value: float, times: int = 1000) -> str:
    return f"{value:g}+0x{times}"


PAGE, SLOW_PAGE = {"severity": "critical", "long": "1h"}, {"severity": "critical", "long": "6h"}
TICKET, SLOW_TICKET = {"severity": "warning", "long": "1d"}, {"severity": "warning", "long": "3d"}


def cases() -> Iterator[Case]:
    """All of them."""
    yield from availability()
    yield from latency()
    yield from errors()
    yield from queue_and_gpu()
    yield from replicas()
    yield from parts()
    yield from certificates()
    yield from drift()


def availability() -> Iterator[Case]:
    alert = "SlipwayAvailabilityBudgetBurn"

    def case(
        fires: bool,
        share: float,
        at: str,
        labels: dict[str, str],
        because: str,
        *,
        interval: str = "1m",
        more: dict[str, str] | None = None,
    ) -> Case:
        failing = share * 1000
        series = {answers(2): each(1000 - failing, 4000), answers(5): each(failing, 4000), **(more or {})}
        return Case(alert, fires, series, at, labels, interval, because)

    # The objective is 99.9 %, so 14.4 times too fast is 1.44 % of failures.
    yield case(True, 0.016, "70m", PAGE, "1.6 % fail")
    yield case(False, 0.013, "70m", PAGE, "1.3 % fail")
    yield case(True, 0.007, "6h40m", SLOW_PAGE, "0.7 % fail")
    yield case(False, 0.005, "6h40m", SLOW_PAGE, "0.5 % fail")
    yield case(True, 0.004, "26h", TICKET, "0.4 % fail", interval="2m")
    yield case(False, 0.002, "26h", TICKET, "0.2 % fail", interval="2m")
    yield case(True, 0.0013, "76h", SLOW_TICKET, "0.13 % fail", interval="2m")
    yield case(False, 0.0008, "76h", SLOW_TICKET, "0.08 % fail", interval="2m")

    fine = {answers(2): each(1000)}
    yield Case(alert, False, {**fine, answers(5): "0+100x60 6000x60"}, "75m", PAGE, because="it is over")
    yield Case(alert, False, {answers(2): stays(50), answers(5): stays(50)}, "70m", PAGE, because="no traffic")
    yield Case(alert, False, {**fine, answers(4): each(500)}, "70m", PAGE, because="4xx and 429 are the callers'")
    yield Case(
        alert, False, {answers(2): "0+0.02x70", answers(5): "0x60 1x10"}, "70m", PAGE, because="one of two at night"
    )
    yield Case(
        alert,
        False,
        {answers(2): "0x2 1 2x60", answers(5): "0x2 1x60"},
        "25m",
        SLOW_PAGE,
        because="one of three at first",
    )
    yield Case(alert, True, {**fine, grpc(14): each(30)}, "70m", PAGE, because="UNAVAILABLE over gRPC")
    yield Case(alert, False, {**fine, grpc(3): each(30), grpc(8): each(30)}, "70m", PAGE, because="gRPC's 4xx")
    yield Case(alert, True, {**fine, BLOCKED: each(30)}, "70m", PAGE, because="gRPC refused by overload")
    overload = {answers(2): each(990), answers(5): each(10), BLOCKED: each(10)}
    yield Case(alert, False, overload, "70m", PAGE, because="a 503 by overload counts once")
    other = {answers(status, FRONT.replace(POD_LABELS, OTHER_RELEASE)): each(500) for status in (2, 5)}
    yield Case(alert, False, other, "70m", PAGE, because="another release")


def latency() -> Iterator[Case]:
    alert = "SlipwayLatencyBudgetBurn"

    def case(
        fires: bool,
        late: float,
        at: str,
        labels: dict[str, str],
        because: str,
        interval: str = "1m",
        le: str = "100",
        extra: float = 0,
    ) -> Case:
        series = {
            answers(2): each(1000, 4000),
            latencies(): each(1000 + extra, 4000),
            latencies(le): each(1000 + extra - 1000 * late, 4000),
        }
        return Case(alert, fires, series, at, labels, interval, because)

    yield case(True, 0.16, "70m", PAGE, "16 % are late")
    yield case(False, 0.13, "70m", PAGE, "13 % are late")
    yield case(True, 0.07, "6h40m", SLOW_PAGE, "7 % are late")
    yield case(False, 0.05, "6h40m", SLOW_PAGE, "5 % are late")
    yield case(True, 0.04, "26h", TICKET, "4 % are late", "2m")
    yield case(False, 0.02, "26h", TICKET, "2 % are late", "2m")
    yield case(True, 0.013, "76h", SLOW_TICKET, "1.3 % are late", "2m")
    yield case(False, 0.008, "76h", SLOW_TICKET, "0.8 % are late", "2m")
    yield case(True, 0.16, "70m", PAGE, "as Prometheus 3 writes the bound", le="100.0")
    yield case(True, 0.16, "70m", PAGE, "quick health checks change nothing", extra=5000)
    yield case(False, 0, "70m", PAGE, "all in time")
    quiet = {answers(2): stays(0), latencies(): each(100), latencies("100"): each(100)}
    yield Case(alert, False, quiet, "70m", PAGE, because="health checks alone")
    # The promise changes from 50 to 100 ms, pod by pod: what took how long is known of the new pods only.
    old = {
        series.replace(POD, POD.replace("x2x9k", "zzzzz")): values
        for series, values in {
            latencies(): each(500),
            latencies("50"): each(500),
        }.items()
    }
    new = {answers(2): each(1000), latencies(): each(500), latencies("100"): each(500)}
    yield Case(alert, False, {**old, **new}, "70m", PAGE, because="pods that promised another latency")
    # 60 % are refused at once; of those that are answered a fifth is late.
    refusing = {answers(2): each(400), answers(5): each(600), latencies(): each(1000), latencies("100"): each(920)}
    yield Case(alert, True, refusing, "70m", PAGE, because="quick refusals are no quick answers")


def errors() -> Iterator[Case]:
    errors = "SlipwayErrors"
    yield Case(errors, True, {answers(2): each(94), answers(5): each(6)}, "20m", because="6 % fail")
    yield Case(errors, False, {answers(2): each(96), answers(5): each(4)}, "20m", because="4 % fail")
    yield Case(errors, False, {answers(2): stays(3), answers(5): "0x10 2x20"}, "14m", because="two requests")

    internal = labelled("slipway_refused_total", 'reason="internal",step="fused"')
    bad_text = labelled("slipway_refused_total", 'reason="bad_text",step="fused"')
    yield Case("SlipwayModelFailures", True, {internal: each(1)}, "20m", because="once a minute")
    yield Case("SlipwayModelFailures", False, {internal: "0x5 1x40"}, "16m", because="once")
    yield Case("SlipwayModelFailures", False, {internal: stays(0), bad_text: each(9)}, "20m", because="bad texts")

    refused = "SlipwayMostRefused"
    yield Case(refused, True, {answers(2): each(40), answers(4): each(60)}, "40m", because="60 % are 4xx")
    yield Case(refused, False, {answers(2): each(60), answers(4): each(40)}, "40m", because="40 % are 4xx")
    yield Case(refused, False, {answers(2): stays(0), answers(4): each(2)}, "40m", because="a scanner")


def queue_and_gpu() -> Iterator[Case]:
    def queue(fires: bool, ms: float, because: str, step: str = "fused") -> Case:
        step = f'step="{step}"'
        series = {
            labelled("slipway_queue_seconds_sum", step): each(ms / 1000 * 100),
            labelled("slipway_queue_seconds_count", step): each(100),
        }
        return Case("SlipwayQueueGrowing", fires, series, "20m", because=because)

    # 100 ms are promised, so a quarter is 25.
    yield queue(True, 30, "30 ms")
    yield queue(False, 20, "20 ms")
    yield queue(False, 30, "the first step of an ensemble, which the last has in it", "tokenize")
    still = {labelled("slipway_queue_seconds_sum"): stays(9), labelled("slipway_queue_seconds_count"): stays(9)}
    yield Case("SlipwayQueueGrowing", False, still, "20m", because="no traffic")

    gpu = 'gpu_uuid="GPU-1",backend="stable"'

    def memory(used: float) -> dict[str, str]:
        return {
            labelled("nv_gpu_memory_used_bytes", gpu): stays(used),
            labelled("nv_gpu_memory_total_bytes", gpu): stays(24e9),
        }

    yield Case("SlipwayGpuMemoryHigh", True, memory(23.5e9), "30m", because="98 %")
    yield Case("SlipwayGpuMemoryHigh", False, memory(22e9), "30m", because="92 %")
    duty = labelled("nv_gpu_utilization", gpu)
    other = duty.replace(POD, POD.replace("x2x9k", "zzzzz"))
    yield Case("SlipwayGpuDutyHigh", True, {duty: stays(0.98), other: stays(0.96)}, "45m", because="all busy")
    yield Case("SlipwayGpuDutyHigh", False, {duty: stays(0.98), other: stays(0.6)}, "45m", because="one has room")


def replicas() -> Iterator[Case]:
    def hpa(fires: bool, current: int, most: int, least: int, because: str, prefix: str = "") -> Case:
        about = HPA.format(prefix)
        series = {
            f"kube_horizontalpodautoscaler_status_current_replicas{{{about}}}": stays(current),
            f"kube_horizontalpodautoscaler_spec_max_replicas{{{about}}}": stays(most),
            f"kube_horizontalpodautoscaler_spec_min_replicas{{{about}}}": stays(least),
        }
        return Case("SlipwayReplicasAtMaximum", fires, series, "30m", because=because)

    yield hpa(True, 20, 20, 2, "20 of 20")
    yield hpa(True, 20, 20, 2, "20 of 20 by KEDA", prefix="keda-hpa-")
    yield hpa(False, 19, 20, 2, "19 of 20")
    yield hpa(False, 3, 3, 3, "fixed to 3")
    yield hpa(False, 20, 20, 2, "another release", prefix="other-")

    blind = "SlipwayAutoscalerBlind"
    inactive = f'condition="ScalingActive",status="false",{HPA.format("")}'
    condition = f"kube_horizontalpodautoscaler_status_condition{{{inactive}}}"
    asked = f"kube_deployment_spec_replicas{{{DEPLOYMENT}}}"
    yield Case(blind, True, {condition: stays(1), asked: stays(3)}, "30m", because="no metrics")
    yield Case(blind, False, {condition: "1x5 0x60", asked: stays(3)}, "30m", because="metrics after five minutes")
    # There is nothing to compute, and Kubernetes calls it inactive.
    yield Case(blind, False, {condition: stays(1), asked: stays(0)}, "30m", because="scaled to 0")

    def deployment(asked: str, ready: str) -> dict[str, str]:
        return {
            f"kube_deployment_spec_replicas{{{DEPLOYMENT}}}": asked,
            f"kube_deployment_status_replicas_ready{{{DEPLOYMENT}}}": ready,
        }

    none, some = "SlipwayNoPodReady", "SlipwayPodsNotReady"
    yield Case(none, True, deployment(stays(3), stays(0)), "10m", because="0 of 3")
    yield Case(none, False, deployment(stays(3), stays(1)), "10m", because="1 of 3")
    yield Case(none, False, deployment(stays(0), stays(0)), "10m", because="scaled to 0")
    yield Case(some, True, deployment(stays(3), stays(2)), "20m", because="2 of 3")
    yield Case(some, False, deployment(stays(3), "2x10 3x20"), "20m", because="3 of 3 after ten minutes")
    # A rolling update adds a pod before it takes one away: as many are ready as are asked for.
    yield Case(some, False, deployment(stays(3), stays(3)), "20m", because="a rolling update")


def parts() -> Iterator[Case]:
    def healthy(http: str, candidate: str | None = None) -> dict[str, str]:
        found = {"v1_http": http, "v1_grpc": http}
        if candidate is not None:
            found |= {"v2_http": candidate, "v2_grpc": candidate}
        return {
            labelled("envoy_cluster_membership_healthy", f'envoy_cluster_name="{name}"'): values
            for name, values in found.items()
        }

    loaded = "SlipwayModelNotLoaded"
    yield Case(loaded, True, healthy(stays(0)), "15m", because="no inference")
    yield Case(loaded, False, healthy("0x3 1x40"), "15m", because="repaired after three minutes")
    yield Case(loaded, False, healthy(stays(1), stays(0)), "15m", because="only the candidate is ill")
    collector = {
        **healthy(stays(1)),
        labelled("envoy_cluster_membership_healthy", 'envoy_cluster_name="collector"'): "0x40",
    }
    yield Case(loaded, False, collector, "15m", because="the collector of traces is none")

    down = "SlipwayComponentDown"
    envoy = labelled("slipway_up", 'component="envoy"')
    triton = labelled("slipway_up", 'component="triton",backend="stable"')
    yield Case(down, True, {envoy: stays(0), triton: stays(1)}, "15m", because="Envoy")
    yield Case(down, True, {envoy: stays(1), triton: stays(0)}, "15m", because="Triton")
    yield Case(down, False, {envoy: stays(1), triton: "0x3 1x40"}, "15m", because="started again")

    missing, up, bound = "SlipwayMetricsMissing", labelled("up"), latencies("100")
    fine = {up: stays(1), envoy: stays(1), triton: stays(1), bound: stays(0)}
    yield Case(missing, False, fine, "20m", because="all there")
    yield Case(missing, True, {}, "20m", because="nothing there")
    yield Case(missing, True, {**fine, up: stays(0)}, "20m", because="a pod can't be scraped")
    yield Case(missing, True, fine | {bound: "0x2 _x40"}, "20m", because="the promised latency is no bound")
    yield Case(missing, False, {**fine, envoy: "1x5 _x5 1x40"}, "20m", because="a gap")

    capture = "SlipwayCaptureDropped"
    written, queue = (labelled("slipway_captured_rows_total", f'outcome="{name}"') for name in ("written", "queue"))
    yield Case(capture, True, {written: each(95), queue: each(5)}, "70m", because="5 % don't fit the queue")
    yield Case(capture, False, {written: each(1000), queue: each(5)}, "70m", because="one in 200")
    yield Case(capture, False, {written: stays(9), queue: stays(9)}, "70m", because="nothing is chosen")


def certificates() -> Iterator[Case]:
    alert, soon, now = "SlipwayCertificateExpiring", {"severity": "warning"}, {"severity": "critical"}
    envoy = labelled("envoy_server_days_until_first_cert_expiring")
    yield Case(alert, True, {envoy: stays(13)}, "30m", soon, because="13 days")
    yield Case(alert, False, {envoy: stays(15)}, "30m", soon, because="15 days")
    yield Case(alert, True, {envoy: stays(1)}, "30m", now, because="a day")
    yield Case(alert, False, {envoy: stays(13)}, "30m", now, because="13 days")
    # What Envoy says without TLS.
    yield Case(alert, False, {envoy: stays(4294967295)}, "30m", soon, because="there is none")
    # promtool's clock starts at 0.
    for label in ("namespace", "exported_namespace"):
        manager = (
            f'certmanager_certificate_expiration_timestamp_seconds{{name="reviews-slipway",{label}="{NAMESPACE}"}}'
        )
        yield Case(alert, True, {manager: stays(10 * 86400)}, "30m", soon, because=f"10 days by {label}")
        yield Case(alert, False, {manager: stays(20 * 86400)}, "30m", soon, because=f"20 days by {label}")


def drift() -> Iterator[Case]:
    def predictions(before: float, after: float, total: float = 100) -> dict[str, str]:
        """A week with one share of `positive`, then a day with another; a sample every 10 minutes."""
        series = {}
        for label, old, new in (("positive", before, after), ("negative", 1 - before, 1 - after)):
            turn = old * total * 1010
            values = f"{each(old * total, 1010)} {each(new * total, 300, turn)}"
            series[labelled("slipway_predictions_total", f'label="{label}",step="fused"')] = values
        return series

    alert = "SlipwayPredictionDrift"
    at, slow = "196h", "10m"
    yield Case(alert, True, predictions(0.5, 0.65), at, {"label": "positive"}, slow, "50 to 65 %")
    yield Case(alert, False, predictions(0.5, 0.58), at, {"label": "positive"}, slow, "50 to 58 %")
    yield Case(alert, False, predictions(0.5, 0.9, total=5), at, {"label": "positive"}, slow, "720 texts a day")
    yield Case(alert, False, predictions(0.5, 0.9, total=0), at, {"label": "positive"}, slow, "no texts")

    def confidence(before: float, after: float, total: float = 100) -> dict[str, str]:
        sums = f"{each(before * total, 1010)} {each(after * total, 300, before * total * 1010)}"
        return {
            labelled("slipway_confidence_sum"): sums,
            labelled("slipway_confidence_count"): each(total, 1400),
        }

    alert = "SlipwayConfidenceDrift"
    yield Case(alert, True, confidence(0.92, 0.85), at, {}, slow, "0.92 to 0.85")
    yield Case(alert, False, confidence(0.92, 0.88), at, {}, slow, "0.92 to 0.88")
    yield Case(alert, False, confidence(0.92, 0.5, total=5), at, {}, slow, "720 texts a day")
