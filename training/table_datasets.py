"""Hugging Face datasets: what `save_to_disk` wrote, or a folder laid out like a repository of the hub.

The folder is read by `datasets` itself, which knows configurations, the naming of split files, and
`ClassLabel`. It runs no code out of the folder (that ended with its version 4). It copies the table into
Arrow files first; those go to a temporary folder, as the table is read once.

A dataset's own splits are honoured: rows of its test split stay test, those of its validation split stay dev,
as its numbers could not be compared with anyone's otherwise. A split whose labels are hidden (all null or -1,
as on leaderboards) can't be measured on and is left out, with a line that says so; so is one of any other
name. A dataset with one split only is a plain table, whatever the split is called.
"""

import tempfile
from typing import Any

from slipway.assets import Asset
from slipway.errors import DataError
from slipway.places import is_full_disk
from slipway.progress import say
from slipway.recipe import Data
from training.table_columns import Columns, SplitName, require_columns

_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train", "validation": "dev", "valid": "dev", "val": "dev", "dev": "dev",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip

_SAVED_TO_DISK = {"dataset_dict.json", "state.json"}


def read_dataset(asset: Asset, section: Data) -> list[Columns]:
    """The columns of each usable split, which carry its name if there are several."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{section.source} is a dataset: pip install 'slipway[train]'.") from error
    if not asset.path.is_dir():
        raise DataError(f"{asset.path} is a file; data.format dataset needs a folder.")
    with tempfile.TemporaryDirectory(prefix="slipway-dataset-") as scratch:
        loaded = _load(datasets, asset, section, scratch)
        named = dict(loaded) if isinstance(loaded, dict) else {"all": loaded}
        parts = []
        for name, rows in named.items():
            split = _SPLITS.get(name.lower()) if len(named) > 1 else None
            where = f"{asset.path.name}, split {name}" if len(named) > 1 else asset.path.name
            if len(named) > 1 and split is None:
                say(f"{asset.path.name}: the split {name!r} is not used (used are train, validation, test)")
                continue
            columns = _columns(datasets, rows, section, where)
            if split in ("dev", "test") and all(label is None for label in columns.labels):
                say(f"{asset.path.name}: the labels of the split {name!r} are hidden, so it is not used")
                continue
            columns.split = split
            parts.append(columns)
    if not any(part.split in (None, "train") for part in parts):
        raise DataError(f"{asset.path.name} has the splits {', '.join(named) or 'none'}, and none to train on.")
    return parts


def _load(datasets: Any, asset: Asset, section: Data, scratch: str) -> Any:
    names = {file.name for file in asset.path.iterdir()}
    if section.subset is not None and names & _SAVED_TO_DISK:
        raise DataError(f"data.subset is set, but {asset.path} was saved to disk and has no subsets.")
    were_hidden = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if names & _SAVED_TO_DISK:
            return datasets.load_from_disk(str(asset.path))
        return datasets.load_dataset(str(asset.path), section.subset, cache_dir=scratch)
    except Exception as error:
        # `datasets` lets through whatever the parser underneath raises, so there is no closer type to catch.
        if is_full_disk(error):
            raise
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise DataError(f"{asset.path} can't be read as a dataset: {reason}") from error
    finally:
        if not were_hidden:
            datasets.enable_progress_bars()


def _columns(datasets: Any, rows: Any, section: Data, where: str) -> Columns:
    require_columns(section, rows.column_names, where)
    label_type = rows.features[section.label]
    labels = rows[section.label][:]
    if isinstance(label_type, datasets.ClassLabel):
        labels = [None if value is None or value < 0 else label_type.int2str(value) for value in labels]
    elif labels and all(value in (None, -1) for value in labels):
        labels = [None] * len(labels)
    columns = Columns()
    columns.begin(where)
    columns.texts, columns.labels = list(rows[section.text][:]), list(labels)
    columns.times = None if section.time is None else list(rows[section.time][:])
    return columns
