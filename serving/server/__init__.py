"""The processes of an endpoint: started, watched, drained, and swept away whoever dies first.

triton.py       running the Triton that comes in a wheel
runtime.py      the directory of a running endpoint, and how all of it is swept away
supervision.py  what passes between an endpoint's owner and its supervisor
supervisor.py   the process that keeps Triton and Envoy, and ends them
endpoint.py     the owner's side: start, wait, stop
"""
