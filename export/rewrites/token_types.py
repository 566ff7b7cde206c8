"""The input `token_type_ids` goes, where every type that is ever sent is 0.

Token types tell the two texts of a pair apart; in a single text all are 0 for BERT, ALBERT and ELECTRA, so their
lookup is one row, which `embeddings` adds to the position table: a lookup and a sum over `[batch, tokens, hidden]`
less, and one input less to fill and to send.

It is exact only under that assumption, so it is left out unless the caller has checked the tokenizer that will be
served (`sends_only_zeros`) and says so.
"""

from pathlib import Path

import numpy as np

from export.rewrites.onnx_graph import OnnxGraph

_INPUT = "token_type_ids"


def drop_token_types(graph: OnnxGraph) -> int:
    """1 if the graph had the input, else 0."""
    if _INPUT not in graph.inputs:
        return 0
    graph.replace(_INPUT, graph.add_constant(np.zeros((1, 1), dtype=np.int64), _INPUT))
    graph.remove_input(_INPUT)
    return 1


def sends_only_zeros(tokenizer: Path, pad_type: int = 0) -> bool:
    """Whether `tokenizer` (a tokenizer.json), padding with `pad_type`, gives every token of a single text the type 0.

    The types of a single text are part of the tokenizer's template, so they don't depend on the text.
    """
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    loaded.no_padding()
    return pad_type == 0 and not any(any(encoding.type_ids) for encoding in loaded.encode_batch(["", "a", "a b c. d"]))
