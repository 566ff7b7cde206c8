"""The wire format that model, front door and client share: names of tensors, limits, the JSON of a request.

The protocol is the Open Inference Protocol (KServe v2); these are the names that a bundle's model gives its tensors.
"""

from typing import Any

Json = dict[str, Any]

INPUT = "text"
LABEL, SCORE, LOGITS = "label", "score", "logits"
MAX_ROWS = 64
"""Most texts of one request."""


def inference_body(text: str) -> Json:
    """The JSON of an HTTP inference request for `text` that returns a label and its score."""
    return {
        "inputs": [{"name": INPUT, "shape": [1, 1], "datatype": "BYTES", "data": [text]}],
        "outputs": [{"name": LABEL}, {"name": SCORE}],
    }
