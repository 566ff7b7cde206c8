"""BentoML around eager PyTorch, with its adaptive batching: one worker for each core.

CHECKPOINT=… python -m bentoml serve bentoml_server:Classifier --host 127.0.0.1 --port PORT
"""

import os

# Requests are answered in other threads than the one that loads, so PyTorch has to be told before it is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import bentoml
from eager import load_eager


@bentoml.service(workers=len(os.sched_getaffinity(0)), traffic={"timeout": 30})
class Classifier:
    def __init__(self) -> None:
        self.classify = load_eager(os.environ["CHECKPOINT"])

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=100)
    def predict(self, text: list[str]) -> list[dict]:
        return self.classify(text)
