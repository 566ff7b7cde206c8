"""A bundle as an ordinary Triton model repository: `models/NAME/config.pbtxt` and `models/NAME/1/…`.

artifact.py       what a repository holds, written and opened
plan.py           from recipe and bundle to what is rendered: layout, instances, queues
configuration.py  every `config.pbtxt`, through Triton's own schema
batching.py       Triton's dynamic batcher: when it is on, its sizes, its bounded queue
gpu.py            what a GPU's configuration has beyond a CPU's: instances on GPUs, TensorRT
"""

from serving.repository.artifact import MODELS, Repository, write_repository
from serving.repository.plan import RepositorySpec, available_cores

__all__ = ["MODELS", "Repository", "RepositorySpec", "available_cores", "write_repository"]
