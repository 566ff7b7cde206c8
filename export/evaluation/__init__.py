"""Evaluation: what a variant's answers are worth, and whether it may be promoted.

gate.py           what may be promoted, which of those is, and why the others are not
significance.py   is a loss real?
classes.py        whose loss is it?
calibration.py    probabilities that mean what they say: temperature
"""
