"""Matplotlib figures as inline SVG that belongs to the page around it.

A JavaScript plot library would bring hover and zoom, and 3 MB of script into a file that is mailed around,
blocked by mail clients and unreadable in ten years. Static SVG from matplotlib is 10 to 150 kB a figure,
prints, and needs nothing. Its price is that matplotlib knows neither the page's colours nor its fonts,
which is settled here:

- figures are drawn in marker colours (`Ink`) that become CSS variables, so that a figure follows light,
  dark and print;
- text stays text in the page's font (it can be selected and read aloud); matplotlib lays it out with DejaVu
  Sans, which is wider than what browsers use, so nothing grows into its neighbour. Labels of the data never
  enter a figure: they are in tables, where the browser finds a font for any script;
- ids get the figure's name as a prefix, because all figures share one document."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


class Ink:
    """Marker colours; `INKS` says which CSS variable each becomes and what it is without one.

    Hues are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
    """

    TEXT = "#010203"
    MUTED = "#010204"
    GRID = "#010205"
    PAPER = "#010206"
    FIRST = "#010207"
    SECOND = "#010208"
    GOOD = "#010209"
    BAD = "#01020a"
    SHADE = "#01020b"


INKS = {
    Ink.TEXT: ("--ink", "#1c2530"),
    Ink.MUTED: ("--muted", "#5d6875"),
    Ink.GRID: ("--grid", "#e3e7ec"),
    Ink.PAPER: ("--card", "#ffffff"),
    Ink.FIRST: ("--first", "#0072b2"),
    Ink.SECOND: ("--second", "#d98200"),
    Ink.GOOD: ("--good", "#00805c"),
    Ink.BAD: ("--bad", "#c8471b"),
    Ink.SHADE: ("--shade", "#f1f3f6"),
}

WIDTH_IN, HEIGHT_IN = 5.6, 3.3

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slipway",
    "path.simplify": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": Ink.TEXT,
    "axes.labelcolor": Ink.MUTED,
    "axes.labelsize": 8.5,
    "axes.edgecolor": Ink.GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "none",
    "grid.color": Ink.GRID,
    "grid.linewidth": 0.8,
    "xtick.color": Ink.GRID,
    "ytick.color": Ink.GRID,
    "xtick.labelcolor": Ink.MUTED,
    "ytick.labelcolor": Ink.MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.3,
    "lines.linewidth": 1.7,
}


@contextmanager
def canvas() -> Iterator[Any]:
    """A matplotlib `Figure` in the page's style; draw and call `to_svg` inside the context."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")


def to_svg(figure: Any, name: str, description: str) -> str:
    """`figure` as an `<svg>` element for a page; `description` is what a screen reader says of it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s(?:xmlns(?::\w+)?|version)=\"[^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"\b(id=\"|href=\"#|url\(#)", rf"\g<1>{name}-", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), svg)
    for marker, (variable, fallback) in INKS.items():
        svg = svg.replace(marker, f"var({variable}, {fallback})")
    box = re.search(r"viewBox=\"[^\"]*\"", svg)
    head = f'<svg class="plot" role="img" aria-label="{_attribute(description)}" {box.group(0) if box else ""}>'
    return head + svg[svg.index(">") + 1 :].strip()


def standalone(svg: str) -> str:
    """An `<svg>` element of `to_svg` as a file of its own, on white."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff" ', 1) + "\n"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
