"""What runs inside Triton's stub processes; Triton imports it through the `model.py` of the repository.

fused.py        text in, label out, in one model
tokenize.py     the same in three: texts to tokens,
encoder.py        tokens to logits (the stand-in for Triton's own backends),
decode.py         logits to labels

incoming.py     a request, read and checked        refusals.py     why one gets no answer
tokens.py       its texts as tokens                answering.py    requests answered together
outputs.py      logits to output tensors           settings.py     what the configuration says
observation.py  what is told of every call         reporting.py    telling it, harmlessly
observers.py    to whom
"""
