"""Watching the endpoint: one page of metrics, traces through all parts, structured logs.

metrics.py      what the model counts, and how it reaches Triton's page of metrics
exposition.py   several pages of metrics become one
exporter.py     the process that serves /metrics
tracing.py      what Envoy and Triton are told about traces
spans.py        the model's spans
logs.py         sentences for people, or JSON lines for a collector
"""
