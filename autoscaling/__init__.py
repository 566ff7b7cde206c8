"""How many replicas a traffic needs, and whether the chart's autoscaler gets there in time: answered on paper.

    hpa.py         the algorithm of Kubernetes' HorizontalPodAutoscaler, as its controller computes it
    measured.py    a replica as a capacity search measured it
    pods.py        replicas that take their time to start, and the signals that a scraper sees of them
    queueing.py    what happens to requests at a replica: a bounded FIFO queue before each model instance
    traffic.py     requests/s over time: constant, ramp, spike, diurnal, recorded
    policies.py    who decides: an HPA over one or more signals, a fixed size, perfect knowledge
    simulation.py  all of it over time
    plan.py        several policies under one traffic: does the objective hold, at how many replica-hours

Everything here is arithmetic; nothing talks to a cluster.
"""
