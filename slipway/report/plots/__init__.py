"""The figures of the report; each function gives one `<svg>` element.

A figure stays legible and small whatever the size of the run: 100,000 requests are drawn as 2,000 points
plus the slowest and the failures (up to a cap), always the same ones, while the curves over them are
computed from all."""

from slipway.report.plots.load import latency_distribution, latency_over_time
from slipway.report.plots.svg import standalone
from slipway.report.plots.training import dev_curve, loss_curve
from slipway.report.plots.variants import variants_plot

__all__ = ["dev_curve", "latency_distribution", "latency_over_time", "loss_curve", "standalone", "variants_plot"]
