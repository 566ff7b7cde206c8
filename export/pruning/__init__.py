"""Pruning: what of a model can go, and for how much.

importance.py     how much each head, neuron and layer matters
budget.py         which of them go, so that what is left fits a share of the computation
"""

from export.pruning.budget import Plan, plan, prune
from slipway.anatomy.compute import structure_of

__all__ = ["Plan", "plan", "prune", "structure_of"]
