"""The front door: Envoy's configuration, made from what it stands in front of.

envoy.py           the bootstrap configuration
request_guard.lua  looks at bodies before Triton parses them
"""
