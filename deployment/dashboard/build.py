"""Rows → Grafana's JSON."""

import itertools
import json

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable
from grafana_foundation_sdk.builders.dashboard import Row as RowBuilder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    VariableRefresh,
    VariableSort,
)

from deployment.dashboard.rows import Panel, rows

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT = 8


def dashboard_json() -> str:
    """The whole dashboard, as the chart has it."""
    board = (
        Dashboard("Slipway")
        .uid("slipway")
        .description("An endpoint: what callers see, and what it comes from. Made by python -m deployment.dashboard.")
        .tags(["slipway", "generated"])
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", "label_values(slipway_build_info, namespace)"))
        .with_variable(
            # NAME-REPLICASET-ID → NAME
            _variable("release", "Release", 'label_values(slipway_build_info{namespace="$namespace"}, pod)').regex(
                "/^(.+)-[^-]+-[^-]+$/"
            )
        )
    )
    ids = itertools.count(1)
    for row in rows():
        # Panels follow their row; inside it Grafana shows them only after it was folded.
        board.with_row(RowBuilder(row.title).id(next(ids)))
        for panel in row.panels:
            board.with_panel(_panel(panel).id(next(ids)))
    return json.dumps(board.build(), cls=JSONEncoder, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _variable(name: str, label: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel:
    built: timeseries.Panel | stat.Panel = _stat() if panel.kind == "stat" else _graph(panel)
    built.title(panel.title).datasource(_SOURCE).unit(panel.unit).height(_HEIGHT).span(panel.width)
    if panel.about:
        built.description(panel.about)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = (
            prometheus.Dataquery().ref_id(letter).datasource(_SOURCE).expr(query.promql).legend_format(query.legend)
        )
        built.with_target(target.instant() if panel.kind == "stat" else target.range())
    return built


def _stat() -> stat.Panel:
    return stat.Panel().color_mode(BigValueColorMode.NONE).graph_mode(BigValueGraphMode.NONE).decimals(2)


def _graph(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.kind == "stack" else 5)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if not panel.signed:
        built.min(0)
    if panel.kind == "stack":
        built.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if panel.most is not None:
        built.max(panel.most)
    for query in panel.queries:
        if query.threshold:
            dashes = {"fill": "dash", "dash": [8, 8]}
            built.override_by_name(
                query.legend,
                [
                    DynamicConfigValue(id_val="custom.lineStyle", value=dashes),
                    DynamicConfigValue(id_val="custom.fillOpacity", value=0),
                    DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": "red"}),
                ],
            )
    return built
