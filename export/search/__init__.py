"""The search: which structures and precisions to try, making them, comparing them.

search.py         the search
plans.py          what each effort tries
structures.py     a model's graph and weights on disk
students.py       smaller structures, each cut out of the one before and taught by the dense one
lessons.py        what the dense one has to say, and how long each student goes on learning
candidates.py     one variant: a structure quantized, and asked the whole of dev
speed.py          all variants and PyTorch beside each other
rows.py           a variant's figures
workers.py        several variants at a time
agenda.py         what is left to do, and for how long
"""
