"""What runs inside Triton's stub processes; Triton imports it through the `model.py` of the repository.

fused.py  text in, label out, in one model
"""
