"""Slipway: labelled text in; a small, fast, proven and safe inference endpoint out.

What every stage holds on to lives here; the stages are the packages beside it (`training`, `export`, `serving`,
`loadtests`) and pass each other nothing but artifacts.
"""

__version__ = "0.1.0"
