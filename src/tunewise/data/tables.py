"""Rows of Parquet files and of data sets on the Hugging Face hub; both libraries load late."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunewise.data.lines import Numbered
from tunewise.errors import DataError
from tunewise.releases import import_failed

_BATCH = 1000


def parquet_rows(path: Path) -> Iterator[Numbered]:
    """Rows of a Parquet file, numbered from 1.

    Raises:
        TunewiseError: pyarrow is not installed, or does not load.
        DataError: the file is damaged or no Parquet file.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise import_failed("Reading Parquet", "parquet", error) from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, plain(row)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the file is damaged or no Parquet file: {reason}", where=f"{path}:{number + 1}"
        ) from None


def hub_parts(name: str, split: str | None) -> list[tuple[str, str]]:
    """``(name, split)`` for each split of a hub data set, or for the one asked for."""
    if split is not None:
        return [(name, split)]
    datasets = _datasets()
    owner_name, config = _config_of(name)
    try:
        splits = datasets.get_dataset_split_names(owner_name, config)
    except Exception as error:
        raise _hub_error(name, error) from None
    order = {"train": 0, "validation": 1, "test": 2}
    return [(name, s) for s in sorted(splits, key=lambda s: (order.get(s, 9), s))]


def hub_rows(name: str) -> Iterator[Numbered]:
    """Rows of ``hf://owner/name[/config]:split``, numbered from 1, streamed.

    Code from the hub is never run: data sets that need ``trust_remote_code`` are refused.

    Raises:
        TunewiseError: ``datasets`` is not installed, or does not load.
        DataError: the data set cannot be had.
    """
    datasets = _datasets()
    repository, _, split = name.removeprefix("hf://").partition(":")
    owner_name, config = _config_of(repository)
    number = 0
    try:
        for row in datasets.load_dataset(owner_name, config, split=split, streaming=True):
            number += 1
            yield number, plain(row)
    except Exception as error:
        raise _hub_error(name, error) from None


def plain(value: Any) -> Any:
    """A table's value as JSON: absent fields of records left out, times in ISO 8601.

    NaN is how tables of numbers write an empty cell.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise import_failed("Reading a data set from the hub", "local", error) from error
    return datasets


def _config_of(name: str) -> tuple[str, str | None]:
    parts = name.split("/")
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else None


def _hub_error(name: str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    return DataError(
        f"the data set cannot be had from the hub: {reason}",
        where=name if name.startswith("hf://") else f"hf://{name}",
        hint="Check the name, the network, and whether the data set needs a login.",
    )
