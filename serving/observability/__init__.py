"""Watching the endpoint: one page of metrics, traces through all parts, structured logs.

metrics.py      what the model counts, and how it reaches Triton's page of metrics
exposition.py   several pages of metrics become one
exporter.py     the process that serves /metrics
page.py         the supervisor's side of it
tracing.py      what Envoy and Triton are told about traces
spans.py        the model's spans
settings.py     how the recipe's section reaches the model
logs.py         sentences for people, or JSON lines for a collector
"""
