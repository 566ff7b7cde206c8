"""Privacy: what identifies a person is masked before a text may leave the process.

folding.py      one spelling for every way to write a digit, a dash or a space
checksums.py    which numbers are what they look like
patterns.py     identifiers of any country, secrets; what a pattern is
chinese.py      identifiers and phone numbers of China
masking.py      find all of them, put a tag in their place
presidio.py     the recognizers of presidio-analyzer, in an extra of its own
capture.py      a sample of the requests for retraining, masked
files.py        the files of the capture: bounded, rotated, whole lines
"""
