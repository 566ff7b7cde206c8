"""The wire format that model, front door and client share: names of tensors, parameters and headers, limits.

The protocol is the Open Inference Protocol (KServe v2); these are the names that a bundle's model gives its tensors.
As that protocol has it, a request that names no outputs gets all of them; name those that are needed.
"""

from typing import Any

Json = dict[str, Any]

INPUT = "text"
"""BYTES `[rows, 1]`, UTF-8."""
LABEL = "label"
"""BYTES `[rows, k]`: the most probable labels, best first; k is 1 unless the request has the parameter `top_k`."""
SCORE = "score"
"""FP32 `[rows, k]`: their probabilities."""
SCORES = "scores"
"""FP32 `[rows, labels]`: the probability of every label, in the bundle's order."""
LOGITS = "logits"
"""FP32 `[rows, labels]`: before temperature and softmax."""
TRUNCATED = "truncated"
"""BOOL `[rows, 1]`: whether the end of the text was left out."""

TOP_K = "top_k"
"""Request parameter: how many labels, 1 to all of them."""

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
ARRIVED = "x-slipway-arrived"
"""When the front door began to receive the request: seconds since 1970, with a fraction."""
DEADLINE = "x-slipway-deadline"
"""When nobody waits for the answer any more: seconds since 1970, with a fraction."""
FORWARDED_HEADERS = (REQUEST_ID, TRACEPARENT, ARRIVED, DEADLINE)
"""What Triton hands on to the model as request parameters."""

MAX_ROWS = 64
"""Most texts of one request."""


def inference_body(text: str) -> Json:
    """The JSON of an HTTP inference request for `text` that returns a label and its score."""
    return {
        "inputs": [{"name": INPUT, "shape": [1, 1], "datatype": "BYTES", "data": [text]}],
        "outputs": [{"name": LABEL}, {"name": SCORE}],
    }
