"""Grafana's dashboard of an endpoint, made from code: `python -m deployment.dashboard` writes the chart's copy.

    promql.py   the pieces that queries are put together from
    rows.py     what is on it: rows of panels, each with its queries
    build.py    rows → Grafana's JSON, by grafana-foundation-sdk

Code rather than an export of Grafana's: a change is a line that can be read, a query is a string that a test runs in a
real Prometheus, and a panel that asks for a series that no endpoint has fails there.
"""
