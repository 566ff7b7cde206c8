"""What one process sends: its share of a load, and all that it needs for it.

A process that was started beside its master reads files that both see. A worker elsewhere has none: it gets the
section and the texts over Locust's connection, and reads from its own environment what no message may carry
(credentials), and from its own files what stands there (certificates). A recording comes as its times alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.arrivals.replay import recorded_s
from loadtests.parcels import Parcel, Parcels
from loadtests.texts import Texts, read_texts
from slipway.recipe import LoadTest

TEXTS, RECORDING, SAMPLES = "texts", "recording", "samples"
"""Names of parcels."""

_COLUMN = "time"


@dataclass(frozen=True)
class Job:
    """A share of a load."""

    section: LoadTest
    model: str
    texts: Texts
    address: str
    """As the caller of the load test wrote it."""
    share: int
    of: int
    allow_remote: bool


class Handout:
    """A master's side: the same for every worker, but for the share."""

    def __init__(
        self, parcels: Parcels, section: LoadTest, model: str, texts: Path, address: str, scratch: Path
    ) -> None:
        """`texts` are prepared; `scratch` is a folder for what has to be written for the workers."""
        self._message = {
            "section": section.model_dump_json(),
            "model": model,
            "address": address,
            "of": section.workers,
            TEXTS: parcels.offer(TEXTS, texts).message(),
        }
        if section.arrivals.process == "replay":
            file = scratch / "recording.parquet"
            pq.write_table(pa.table({_COLUMN: recorded_s(section.arrivals)}), file)
            self._message[RECORDING] = parcels.offer(RECORDING, file).message()

    def share(self, index: int) -> dict[str, Any]:
        """The message for the worker that has this share."""
        return self._message | {"share": index}


def take_over(message: dict[str, Any], parcels: Parcels, scratch: Path, *, allow_remote: bool) -> Job:
    """A worker's side: fetch what `message` names. `allow_remote` is the worker's own word, not the master's."""
    section = LoadTest.model_validate_json(message["section"])
    texts = scratch / "texts.parquet"
    parcels.fetch(Parcel(**message[TEXTS]), texts)
    if section.arrivals.process == "replay":
        file = scratch / "recording.parquet"
        parcels.fetch(Parcel(**message[RECORDING]), file)
        arrivals = section.arrivals.model_copy(update={"source": f"file:{file}", "column": _COLUMN})
        section = section.model_copy(update={"arrivals": arrivals})
    return Job(
        section,
        message["model"],
        read_texts(texts),
        message["address"],
        message["share"],
        message["of"],
        allow_remote,
    )
