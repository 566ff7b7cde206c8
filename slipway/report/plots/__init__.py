"""The figures of the report; each function gives one `<svg>` element.

A figure stays legible and small whatever the size of the run: of a load test it draws what its
`slipway.timeline` kept, and that is as much for a night as for a minute."""

from slipway.report.plots.svg import standalone
from slipway.report.plots.timeline import distribution, latency_over_time
from slipway.report.plots.training import dev_curve, loss_curve
from slipway.report.plots.variants import variants_plot

__all__ = ["dev_curve", "distribution", "latency_over_time", "loss_curve", "standalone", "variants_plot"]
