"""FastAPI and uvicorn around eager PyTorch, as most tutorials have it: one worker for each core.

python fastapi_server.py CHECKPOINT PORT
"""

import os
import sys

import uvicorn
from eager import load_eager
from fastapi import FastAPI
from pydantic import BaseModel


class Question(BaseModel):
    text: str


def application() -> FastAPI:
    classify = load_eager(os.environ["CHECKPOINT"])
    app = FastAPI()

    @app.post("/predict")
    async def predict(question: Question) -> dict[str, object]:
        return classify([question.text])[0]

    return app


if __name__ == "__main__":
    os.environ["CHECKPOINT"] = sys.argv[1]
    uvicorn.run(
        "fastapi_server:application",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        workers=len(os.sched_getaffinity(0)),
        log_level="warning",
        access_log=False,
        # A worker that loads PyTorch on a busy machine is not a hung one.
        timeout_worker_healthcheck=120,
    )
