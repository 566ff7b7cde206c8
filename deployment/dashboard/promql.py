"""The pieces that the dashboard's queries are put together from.

Pods are those of a release's Deployment: NAME-REPLICASET-ID, or NAME-ID where Kubernetes cut a long name. `release` is
the Deployment's name, as that is what pods tell of it.
"""

PODS = 'namespace="$namespace",pod=~"${release}(-[^-]+){1,2}"'
FRONT = f'envoy_http_conn_manager_prefix="front",{PODS}'
RECORDED = 'namespace="$namespace",deployment="$release"'
"""Series that the chart's rules record."""
DEPLOYMENT = RECORDED
AUTOSCALER = 'namespace="$namespace",horizontalpodautoscaler=~"(keda-hpa-)?$release"'
LAST_STEP = f'step!="tokenize",{PODS}'
"""Of an ensemble the last step's, which has the waits before it in it."""


def rate(name: str, labels: str = PODS, over: str = "$__rate_interval") -> str:
    """Of all pods together, a second."""
    return f"sum(rate({name}{{{labels}}}[{over}]))"


def rate_by(by: str, name: str, labels: str = PODS, over: str = "$__rate_interval") -> str:
    """The same, one series for each value of `by`."""
    return f"sum by ({by}) (rate({name}{{{labels}}}[{over}]))"


def ratio(of: str, to: str) -> str:
    """A gap where there is nothing to divide by."""
    return f"{of} / ({to} > 0)"


def share_by(by: str, name: str, labels: str = PODS, over: str = "$__rate_interval") -> str:
    """Each value's part of the whole."""
    return f"{rate_by(by, name, labels, over)} / on () group_left () ({rate(name, labels, over)} > 0)"


def quantile(q: float, name: str, labels: str = PODS) -> str:
    """Of a histogram."""
    return f"histogram_quantile({q:g}, {rate_by('le', f'{name}_bucket', labels)})"


def mean(name: str, labels: str = PODS, over: str = "$__rate_interval") -> str:
    """Of a histogram."""
    return ratio(rate(f"{name}_sum", labels, over), rate(f"{name}_count", labels, over))


def per_pod(query: str) -> str:
    """The mean over pods of what `query` gives for each, which an autoscaler compares with its target."""
    return f"avg({query})"
