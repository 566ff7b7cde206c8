"""How many replicas a traffic needs, and whether the chart's autoscaler gets there in time: answered on paper.

    hpa.py               the algorithm of Kubernetes' HorizontalPodAutoscaler, as its controller computes it
    recommendation.py    of it, how many replicas one metric asks for
    settings.py          its settings, as the chart's values have them
    measured.py          a replica as a capacity search measured it
    queueing.py          what happens to requests at a replica: one bounded FIFO queue, emptied by its model instances
    pods.py              replicas that take their time to start, and the signals that a scraper sees of them
    traffic.py           requests/s over time: constant, ramp, spike, diurnal, recorded
    traffic_argument.py  the same as it is written on a command line
    policies.py          who decides: an HPA over one or more signals, a fixed size, perfect knowledge
    simulation.py        all of it over time
    plan.py              several policies under one traffic: does the objective hold, at how many replica-hours
    growth.py            what a rate takes up to a million requests/s, and which limit it meets first
    report.py, plot.py   a plan as tables and as a picture
    manifest.py          a HorizontalPodAutoscaler's manifest
    quantities.py        the quantities in it and in a trace
    replay.py            a recorded autoscaler, decided again

Everything here is arithmetic; nothing talks to a cluster.
"""
