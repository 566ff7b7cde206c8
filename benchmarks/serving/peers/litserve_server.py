"""LitServe around eager PyTorch, with its batching: one worker for each core.

python litserve_server.py CHECKPOINT PORT
"""

import os
import sys

import litserve
from eager import load_eager


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.classify = load_eager(sys.argv[1])

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict[str, object]]:
        return self.classify(texts)

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Classifier(max_batch_size=8, batch_timeout=0.002),
        accelerator="cpu",
        workers_per_device=len(os.sched_getaffinity(0)),
    )
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
