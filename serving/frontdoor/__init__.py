"""The front door: Envoy's configuration, made from what it stands in front of.

door.py            what it is made from
dynamic.py         writes the files; what may change while Envoy runs is watched by it
envoy.py           the bootstrap: the listener, and the filters in the order that a request passes them
admission.py, admission.lua   credentials, scopes, deadlines
credentials.py     the files of keys and tokens: made, checked, noticed when they change
limits.py          sizes, times, connections, rates
request_guard.lua  looks at bodies before Triton parses them
overload.py        how many requests may be in flight
routes.py, clusters.py, health.py   where a request goes
replies.py, access_log.py, openapi.py   what is said about it
tls.py, xds.py     certificates; the shapes of Envoy's configuration
"""
