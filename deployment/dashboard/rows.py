"""What is on the dashboard: rows of panels, from what callers notice to what it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from deployment.dashboard.promql import (
    AUTOSCALER,
    DEPLOYMENT,
    FRONT,
    LAST_STEP,
    PODS,
    RECORDED,
    mean,
    per_pod,
    quantile,
    rate,
    rate_by,
    ratio,
    share_by,
)


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called."""

    promql: str
    legend: str
    threshold: bool = False
    """A line that the others are held against."""


@dataclass(frozen=True)
class Panel:
    """One graph, or with `kind` stat one number. `width` of 24."""

    title: str
    unit: str
    queries: Sequence[Query]
    about: str = ""
    width: int = 8
    kind: Literal["graph", "stack", "stat"] = "graph"
    most: float | None = None
    signed: bool = False
    """Below 0, too."""


@dataclass(frozen=True)
class Row:
    """Panels under one title."""

    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


def rows() -> list[Row]:
    """Top to bottom."""
    return [
        Row("Objectives", objectives()),
        Row("Traffic", traffic()),
        Row("Latency", latency()),
        Row("Errors and refusals", errors()),
        Row("Queue", queue()),
        Row("Batches and padding", batches()),
        Row("GPU", gpu()),
        Row("Autoscaling", autoscaling()),
        Row("Predictions", predictions()),
        Row("Processes", processes()),
    ]


def _recorded(name: str, more: str = "") -> str:
    return f"slipway:{name}{{{RECORDED}{more}}}"


def objectives() -> list[Panel]:
    """Of 30 days, and how fast their budgets go. All is recorded by the chart's rules (`alerts.enabled`)."""

    def month(name: str) -> str:
        return f"sum_over_time(slipway:{name}:rate5m{{{RECORDED}}}[30d])"

    failed = ratio(month("failures"), month("requests"))
    late = f"{month('late')} / ({month('requests')} - {month('failures')} > 0)"
    allowed = {name: f"(1 - {_recorded(f'slo_{name}:ratio')})" for name in ("availability", "latency")}
    about = "Recorded by the chart's rules: empty without `alerts.enabled`."

    def stat(title: str, promql: str, what: str) -> Panel:
        return Panel(title, "percentunit", [Query(promql, title)], f"{what} {about}", 4, "stat")

    def burn(record: str, slo: str) -> list[Query]:
        return [
            *(
                Query(f"{_recorded(f'{record}:ratio_rate{over}')} / {allowed[slo]}", over)
                for over in ("1h", "6h", "3d")
            ),
            Query("vector(1)", "as planned", threshold=True),
        ]

    return [
        stat("Answered, 30 days", f"1 - {failed}", "Requests without failures."),
        stat("Budget left", f"1 - ({failed}) / {allowed['availability']}", "Of the failures of 30 days."),
        stat("In time, 30 days", f"1 - {late}", "Answers within the promised latency."),
        stat("Latency budget left", f"1 - ({late}) / {allowed['latency']}", "Of the late answers of 30 days."),
        Panel(
            "Availability: burn rate", "short", burn("failures", "availability"),
            f"How many times too fast the budget goes. {about}", 4,
        ),
        Panel("Latency: burn rate", "short", burn("late", "latency"), f"The same of late answers. {about}", 4),
    ]  # fmt: skip


def traffic() -> list[Panel]:
    """What callers send, without health checks."""
    clusters = f'envoy_cluster_name=~".+_(http|grpc)",{PODS}'
    by_class = rate_by("envoy_response_code_class", "envoy_http_downstream_rq_xx", FRONT)
    by_cluster = rate_by("envoy_cluster_name", "envoy_cluster_upstream_rq_total", clusters)
    return [
        Panel(
            "Requests by status", "reqps", [Query(by_class, "{{envoy_response_code_class}}xx")],
            "At the front door, without health checks. Over gRPC every answer is a 200; see gRPC failures.",
            kind="stack",
        ),
        Panel(
            "Requests by version and protocol", "reqps",
            [Query(by_cluster, "{{envoy_cluster_name}}")],
            "What went to each Triton, copies for a shadow included.",
        ),
        Panel(
            "Texts and connections", "short",
            [
                Query(rate("slipway_predictions_total"), "texts/s"),
                Query(f"sum(envoy_http_downstream_cx_active{{{FRONT}}})", "connections"),
            ],
        ),
    ]  # fmt: skip


def latency() -> list[Panel]:
    """As callers see it, and where it goes."""
    callers = [Query(quantile(q, "envoy_http_downstream_rq_time", FRONT), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    promised = Query(f"1000 * max({_recorded('slo_latency:seconds')})", "promised", threshold=True)
    parts = [
        Query(f"1000 * {mean('slipway_queue_seconds', LAST_STEP)}", "waits"),
        Query(f"1000 * {mean('slipway_tokenize_seconds')}", "is tokenized"),
        Query(f"1000 * {mean('slipway_compute_seconds')}", "is computed"),
    ]
    return [
        Panel(
            "Latency at the front door", "ms", [*callers, promised],
            "Of all requests, refusals and health checks at the door included.", 10,
        ),
        Panel(
            "Answers in time", "percentunit",
            [
                Query(f"1 - {_recorded('late:ratio_rate5m')}", "in time"),
                Query(f"max({_recorded('slo_latency:ratio')})", "promised", threshold=True),
            ],
            "Of those that were answered. Recorded by the chart's rules.", 7,
        ),
        Panel("Where a request's time goes", "ms", parts, "Means; a call of the model is shared by a batch.", 7),
    ]  # fmt: skip


def errors() -> list[Panel]:
    """Failures, which burn the budget, and refusals, which are the callers' to mend."""
    names = {2: "UNKNOWN", 4: "DEADLINE_EXCEEDED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS"}
    blocked = rate("envoy_http_adaptive_concurrency_gradient_controller_rq_blocked", FRONT)
    client = rate("envoy_http_downstream_rq_xx", f'envoy_response_code_class="4",{FRONT}')
    return [
        Panel(
            "Failed requests", "percentunit",
            [
                Query(_recorded("failures:ratio_rate5m"), "failed"),
                Query(f"1 - max({_recorded('slo_availability:ratio')})", "allowed over 30 days", threshold=True),
            ],
            "5xx, gRPC's like of it, and what overload refuses. Recorded by the chart's rules.", 6,
        ),
        Panel(
            "Refused at the front door", "reqps",
            [
                Query(client, "4xx, 429 included"),
                Query(rate("envoy_http_local_rate_limit_rate_limited"), "over the rate"),
                Query(blocked, "too many in flight"),
                Query(rate("envoy_http_downstream_rq_overload_close", FRONT), "out of memory"),
            ],
            "Over the rate: both protocols. Too many in flight: 503 or UNAVAILABLE, a failure.", 6,
        ),
        Panel(
            "Refused by the model", "reqps", [Query(rate_by("reason", "slipway_refused_total"), "{{reason}}")],
            "`internal` is a failure, `deadline` came too late to be worth answering, the others are bad requests.", 6,
        ),
        Panel(
            "gRPC failures", "reqps",
            [Query(rate(f"envoy_cluster_grpc_ModelInfer_{status}"), name) for status, name in names.items()],
            "Statuses that are the server's fault. A series begins with the first of its kind.", 6,
        ),
    ]  # fmt: skip


def queue() -> list[Panel]:
    """What waits, and how much may."""
    waits = [
        Query(f"1000 * {mean('slipway_queue_seconds', LAST_STEP)}", "mean"),
        Query(f"1000 * {quantile(0.99, 'slipway_queue_seconds', LAST_STEP)}", "p99"),
        Query(f"1000 / 4 * max({_recorded('slo_latency:seconds')})", "alert", threshold=True),
    ]
    bound = f"sum(envoy_http_adaptive_concurrency_gradient_controller_concurrency_limit{{{FRONT}}})"
    return [
        Panel("Wait for the model", "ms", waits, "From the front door to the start of the model's call."),
        Panel(
            "In flight", "short",
            [
                Query(f"sum(envoy_http_downstream_rq_active{{{FRONT}}})", "wait or run"),
                Query(bound, "bound", threshold=True),
            ],
            "The bound is where the front door begins to refuse; it follows what is measured.",
        ),
        Panel(
            "In Triton's queue", "short",
            [Query(f"sum by (model) (nv_inference_pending_request_count{{{PODS}}})", "{{model}}")],
        ),
    ]  # fmt: skip


def batches() -> list[Panel]:
    """How well requests are put together. Health checks are in these, two a second and pod."""
    calls = rate("slipway_batches_total", LAST_STEP)
    padding = rate("slipway_tokens_total", f'kind="padding",{PODS}')
    texts = rate("slipway_rows_total", LAST_STEP)
    return [
        Panel(
            "Batch size", "short",
            [
                Query(ratio(rate("slipway_requests_total", LAST_STEP), calls), "requests a call"),
                Query(ratio(texts, calls), "texts a call"),
                Query(ratio(rate("slipway_runs_total"), calls), "runs of the engine a call"),
            ],
            "Means over calls of the model, health checks included.",
        ),
        Panel(
            "Padding", "percentunit",
            [
                Query(ratio(padding, rate("slipway_tokens_total")), "tokens that only fill up"),
                Query(ratio(rate("slipway_truncated_rows_total"), texts), "texts that were cut"),
            ],
            most=1,
        ),
        Panel("Tokens", "cps", [Query(rate_by("kind", "slipway_tokens_total"), "{{kind}}")], kind="stack"),
    ]  # fmt: skip


def gpu() -> list[Panel]:
    """Nothing where there is none."""
    used, there = f"nv_gpu_memory_used_bytes{{{PODS}}}", f"nv_gpu_memory_total_bytes{{{PODS}}}"
    return [
        Panel(
            "Duty", "percentunit",
            [Query(f"avg by (pod, gpu_uuid) (nv_gpu_utilization{{{PODS}}})", "{{pod}} {{gpu_uuid}}")], most=1,
        ),
        Panel(
            "Memory", "percentunit",
            [Query(f"max by (pod, gpu_uuid) ({ratio(used, there)})", "{{pod}} {{gpu_uuid}}")], most=1,
        ),
        Panel(
            "Power", "watt",
            [Query(f"max by (pod, gpu_uuid) (nv_gpu_power_usage{{{PODS}}})", "{{pod}} {{gpu_uuid}}")],
        ),
    ]  # fmt: skip


def autoscaling() -> list[Panel]:
    """Replicas, and the signals that decide about them beside their targets."""

    def hpa(name: str) -> str:
        return f"max(kube_horizontalpodautoscaler_{name}{{{AUTOSCALER}}})"

    def target(signal: str) -> Query:
        labels = f',signal="{signal}"'
        return Query(f"max({_recorded('target', labels)})", "target", threshold=True)

    busy = f"sum by (pod) (rate(slipway_execute_seconds_sum{{{PODS}}}[1m]))"
    waits, counted = (
        f"sum by (pod) (rate(slipway_queue_seconds_{part}{{{LAST_STEP}}}[1m]))" for part in ("sum", "count")
    )
    return [
        Panel(
            "Replicas", "short",
            [
                Query(f"max(kube_deployment_spec_replicas{{{DEPLOYMENT}}})", "asked for"),
                Query(f"max(kube_deployment_status_replicas_ready{{{DEPLOYMENT}}})", "ready"),
                Query(hpa("status_desired_replicas"), "wanted by the autoscaler"),
                Query(hpa("spec_min_replicas"), "least", threshold=True),
                Query(hpa("spec_max_replicas"), "most", threshold=True),
            ],
            "From kube-state-metrics.", 8,
        ),
        Panel(
            "In flight, a replica", "short",
            [
                Query(per_pod(f"sum by (pod) (envoy_http_downstream_rq_active{{{FRONT}}})"), "in flight"),
                target("inFlight"),
            ],
            width=4,
        ),
        Panel(
            "Busy instances, a replica", "short", [Query(per_pod(busy), "busy"), target("busyInstances")], width=4,
        ),
        Panel(
            "Queue, a replica", "ms",
            [Query(per_pod(f"1000 * {waits} / clamp_min({counted}, 1e-9)"), "wait"), target("queueMs")], width=4,
        ),
        Panel(
            "GPU duty, a replica", "percentunit",
            [Query(per_pod(f"avg by (pod) (nv_gpu_utilization{{{PODS}}})"), "duty"), target("gpuDuty")], width=4,
        ),
    ]  # fmt: skip


def predictions() -> list[Panel]:
    """What the model says, and whether it says it as it did."""
    unsure = ratio(
        rate("slipway_confidence_bucket", f'le="0.6",{PODS}', "1h"), rate("slipway_confidence_count", PODS, "1h")
    )
    last_week = f"{_recorded('predictions:share1d')} - {_recorded('predictions:share1d')} offset 1w"
    return [
        Panel(
            "Labels", "percentunit", [Query(share_by("label", "slipway_predictions_total", PODS, "1h"), "{{label}}")],
            "Each label's part of an hour of callers' texts.", 6, "stack", 1,
        ),
        Panel(
            "Labels against a week ago", "percentunit", [Query(last_week, "{{label}}")],
            "A day's share minus that of the same day last week. Recorded by the chart's rules.", 6, signed=True,
        ),
        Panel(
            "Confidence", "percentunit",
            [Query(mean("slipway_confidence", PODS, "1h"), "mean"), Query(unsure, "below 0.6")],
            "Of an hour.", 6, most=1,
        ),
        Panel(
            "Captured texts", "cps", [Query(rate_by("outcome", "slipway_captured_rows_total"), "{{outcome}}")],
            "Only with `capture.rate`. Everything but `written` is lost.", 6, "stack",
        ),
    ]  # fmt: skip


def processes() -> list[Panel]:
    """Whether all parts are there, and what they take."""
    container = f'container="endpoint",{PODS}'
    days = f"min(envoy_server_days_until_first_cert_expiring{{{PODS}}} < 36500)"
    healthy = f'envoy_cluster_membership_healthy{{envoy_cluster_name=~".+_(http|grpc)",{PODS}}}'
    used = f"container_cpu_usage_seconds_total{{{container}}}"
    restarts = f"kube_pod_container_status_restarts_total{{{container}}}"
    return [
        Panel(
            "Parts that answer", "percentunit",
            [Query(f"avg by (component, backend) (slipway_up{{{PODS}}})", "{{component}} {{backend}}")],
            "Of the parts of all pods.", 6, most=1,
        ),
        Panel(
            "Models that answer", "short",
            [
                Query(f"sum by (envoy_cluster_name) ({healthy})", "{{envoy_cluster_name}}"),
                Query(f"count(slipway_build_info{{{PODS}}})", "pods that are scraped", threshold=True),
            ],
            "By a real inference, once a second.", 6,
        ),
        Panel(
            "Processor", "short",
            [Query(f"sum by (pod) (rate({used}[$__rate_interval]))", "{{pod}}")],
            "Cores; from the kubelet.", 6,
        ),
        Panel(
            "Memory", "bytes",
            [Query(f"max by (pod) (container_memory_working_set_bytes{{{container}}})", "{{pod}}")],
            "From the kubelet.", 6,
        ),
        Panel(
            "Restarts", "short",
            [
                Query(f"sum by (pod) (increase({restarts}[1h]))", "{{pod}}"),
                Query(f"sum(increase(slipway_observer_failures_total{{{PODS}}}[1h]))", "failures of observers"),
            ],
            "Of an hour. What is repaired inside a pod is no restart.", 6,
        ),
        Panel("Envoy's memory", "bytes", [Query(f"max(envoy_server_memory_allocated{{{PODS}}})", "largest")], width=6),
        Panel(
            "Certificate", "d", [Query(days, "days left")], "Of the first that ends; empty without TLS.", 6, "stat",
        ),
        Panel(
            "Versions", "short", [Query(f"count by (version) (slipway_build_info{{{PODS}}})", "{{version}}")],
            "Pods by the version of Slipway.", 6,
        ),
    ]  # fmt: skip
