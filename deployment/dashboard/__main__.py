"""`python -m deployment.dashboard`: write the chart's copy of the dashboard."""

from pathlib import Path

from deployment.dashboard.build import dashboard_json

FILE = Path(__file__).parents[2] / "helm" / "slipway" / "dashboards" / "slipway.json"

if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(dashboard_json(), encoding="utf-8")
