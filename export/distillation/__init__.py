"""Distillation: a smaller model learns from the dense one, of labelled texts and of others.

teacher.py        what the dense model has to teach, asked once
objective.py      what a student is asked to match, and its training: `distil`
unlabelled.py     texts of the domain without labels

learning.py       the loop: stepped, saved, gone on with, finished by a deadline
pacing.py         how fast to learn at each point of it
resumption.py     its state in a file
token_batches.py  texts as batches of similar length
autocast.py       in which precision
"""

from export.distillation.learning import Curve
from export.distillation.objective import Distillation, distil
from export.distillation.teacher import Teacher, teach

__all__ = ["Curve", "Distillation", "Teacher", "distil", "teach"]
