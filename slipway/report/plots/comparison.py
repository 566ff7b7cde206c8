"""By how much two endpoints differ, and whether the difference holds from block to block."""

from slipway.comparison import Comparison
from slipway.report.plots.axes import DASHES, latency_axis, legend
from slipway.report.plots.svg import Ink, canvas, to_svg


def ratio_plot(comparison: Comparison) -> str:
    """B over A of each figure with its interval; 1 is no difference."""
    with canvas() as figure:
        axes = figure.subplots()
        for row, ratio in enumerate(comparison.ratios):
            ink = Ink.FIRST if ratio.differs else Ink.MUTED
            axes.plot([ratio.low, ratio.high], [row, row], color=ink, linewidth=2.4, solid_capstyle="butt")
            axes.plot([ratio.ratio], [row], marker="o", markersize=7, color=ink)
            axes.annotate(
                f"{ratio.ratio:.2f}",
                (ratio.ratio, row),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=Ink.TEXT,
                fontsize=8,
            )
        axes.axvline(1, color=Ink.TEXT, linewidth=1.0)
        if comparison.max_p99_ratio is not None:
            axes.axvline(
                comparison.max_p99_ratio, color=Ink.BAD, linewidth=1.1, linestyle=DASHES, label="most that p99 may be"
            )
        ends = [value for ratio in comparison.ratios for value in (ratio.low, ratio.high) if value > 0]
        latency_axis(axes, "x", min([*ends, 0.95]), max([*ends, 1.05]), pad=0.1)
        axes.grid(visible=True, axis="x")
        axes.set_yticks(range(len(comparison.ratios)), [ratio.figure for ratio in comparison.ratios])
        axes.set_ylim(len(comparison.ratios) - 0.4, -0.7)
        axes.set_xlabel("B over A (logarithmic)")
        legend(axes)
        return to_svg(figure, "ratios", "Ratio of B to A for each figure, with confidence intervals")


def blocks_plot(comparison: Comparison) -> str:
    """p99 of every block in the order in which they ran; a pair is joined by a line."""
    with canvas() as figure:
        axes = figure.subplots()
        pairs: dict[int, list[tuple[int, float]]] = {}
        for block in comparison.blocks:
            first = block.side == "a"
            pairs.setdefault(block.pair, []).append((block.number, block.latency.p99))
            axes.plot(
                [block.number],
                [block.latency.p99],
                linestyle="none",
                marker="o" if first else "D",
                markersize=5.5,
                color=Ink.FIRST if first else Ink.SECOND,
                markerfacecolor=(Ink.FIRST if first else Ink.SECOND) if block.valid else "none",
                label="A" if first else "B",
                zorder=3,
            )
        for points in pairs.values():
            axes.plot(*zip(*points, strict=True), color=Ink.MUTED, linewidth=0.9, alpha=0.7, zorder=1)
        values = [block.latency.p99 for block in comparison.blocks if block.latency.p99 > 0]
        latency_axis(axes, "y", min(values, default=1.0), max(values, default=1.0), pad=0.1)
        axes.set_xlabel("block, in the order in which they ran (hollow: invalid)")
        axes.set_ylabel("p99, ms (logarithmic)")
        legend(axes)
        return to_svg(figure, "blocks", "p99 of each block of A and B in the order in which they ran")
