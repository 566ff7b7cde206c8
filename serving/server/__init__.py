"""The processes of an endpoint: started, watched, mended, drained, and swept away whoever dies first.

endpoint.py     the owner's side: start, wait, stop
supervision.py  what passes between an endpoint's owner and its supervisor
supervisor.py   the process that keeps the others: its loop
fleet.py        what it keeps: a stable version, perhaps a candidate, the front door
versions.py     one version, a Triton of its own
installation.py which Triton: the one in a wheel, or one of one's own
triton.py       running it
front.py        Envoy's process and its configuration
envoy_admin.py  asking Envoy
mending.py      what is done when a part dies or hangs
drain.py        ending without cutting anyone off
processes.py    a child process
launch.py       how a child becomes a program that dies with its parent
runtime.py      the directory of a running endpoint, and how all of it is swept away
"""
