"""From evidence to a cluster: what the chart in `helm/slipway` is given.

values.py   a values file from what was measured
schema.py   the schema of the chart's values
dashboard/  Grafana's dashboard
"""
