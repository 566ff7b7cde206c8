"""Changing the model of a running endpoint without losing a request: `slipway promote`.

promote.py    the caller's side: finds the endpoint, sends the repository, follows
endpoints.py  the running endpoints of this user
control.py    the socket on which an endpoint is asked
promotion.py  one promotion, from a repository to everybody's answers, or back
watch.py      the evidence of one step
evidence.py   what Envoy counted about a version
sampling.py   texts that both versions are asked
judgement.py  whether a version keeps its bounds, on so much evidence
"""
