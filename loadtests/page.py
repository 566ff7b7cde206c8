"""The page that goes into an artifact, where what draws it is installed.

A generator machine may do without matplotlib: the figures are in the JSON beside the page all the same, and
the page can be had by installing `slipway[report]`.
"""

from collections.abc import Callable
from pathlib import Path

from slipway.capacity import Capacity
from slipway.comparison import Comparison
from slipway.progress import say
from slipway.timeline import Timeline
from slipway.verdict import Verdict

PAGE = "report.html"


def write_page(folder: Path, draw: Callable[[], str]) -> None:
    """Write what `draw` gives as `folder/report.html`; without the libraries for it, say so and go on."""
    try:
        page = draw()
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "jinja2"):
            raise
        say(f"No {PAGE} was drawn, as {error.name} is not installed: pip install 'slipway[report]'.")
        return
    (folder / PAGE).write_text(page, encoding="utf-8")


def verdict_page(name: str, verdict: Verdict, timeline: Timeline) -> str:
    """The page of one run."""
    from slipway.report.loadtest import verdict_page

    return verdict_page(name, verdict, timeline)


def capacity_page(name: str, capacity: Capacity) -> str:
    """The page of a search for the capacity."""
    from slipway.report.loadtest import capacity_page

    return capacity_page(name, capacity)


def comparison_page(name: str, comparison: Comparison) -> str:
    """The page of a comparison."""
    from slipway.report.loadtest import comparison_page

    return comparison_page(name, comparison)
