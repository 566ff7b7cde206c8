"""The engine without a server: a process that answers texts as fast as it can, one request after the other.

It takes orders as `benchmarks.serving.asking` does: `{"seconds": …, "texts": [[…], …], "seed": …}`.
"""

import json
import random
import sys
import time
from pathlib import Path

from slipway.bundle import Bundle
from slipway.predictor import Predictor


def main() -> None:
    bundle = Bundle.open(Path(sys.argv[1]), verify=False)
    predictor = Predictor(bundle.path, bundle.spec, bundle.target("cpu"), threads=int(sys.argv[2]))
    for line in sys.stdin:
        order = json.loads(line)
        draw = random.Random(order["seed"])
        latencies = []
        used, began = time.process_time(), time.perf_counter()
        ends = began + order["seconds"]
        while (started := time.perf_counter()) < ends:
            predictor.predict(draw.choice(order["texts"]))
            latencies.append(1000 * (time.perf_counter() - started))
        result = {
            "latencies_ms": latencies,
            "errors": 0,
            "seconds": time.perf_counter() - began,
            "cpu_s": time.process_time() - used,
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
