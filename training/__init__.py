"""Training: recipe + labelled table → checkpoint.

bases.py        load the base model and its tokenizer
tables.py       read a table in whatever format it comes
splits.py       train / dev / test without leakage
finetuning.py   the loop
optimizer.py    decay groups, learning rates
evaluation.py   logits of many texts, fast
checkpoints.py  the stage: puts the above together and writes the artifact
"""

from training.checkpoints import train, training_inputs

__all__ = ["train", "training_inputs"]
