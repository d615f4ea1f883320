"""Tables that are in the process already: pandas, Polars, Arrow, or columns by name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ondevice.data.sources import cache_directory, sha256_of
from ondevice.data.splits import SPLITS
from ondevice.errors import DataError, MissingPackage, UserError


def kept_table(data: Any) -> Any:
    """The path of a Parquet file that holds a table, named by its content, in the cache.

    A mapping of ``train``, ``valid`` and ``test`` gives a mapping of paths. So a run can be resumed and exported
    later, and the same rows are the same data.

    Raises: UserError: for what is no table, or a column that mixes kinds of values.
    """
    if isinstance(data, Mapping) and set(data) == set(SPLITS):
        return {name: kept_table(part) for name, part in data.items()}
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingPackage(
            "tables in the process need pyarrow; pip install 'ondevice-recommender[train]'"
        ) from None
    try:
        if type(data).__module__.startswith("pandas."):
            table = pa.Table.from_pandas(data, preserve_index=False)
        elif isinstance(data, Mapping) or hasattr(data, "__arrow_c_stream__") or isinstance(data, pa.Table):
            table = pa.table(data)
        else:
            raise DataError(f"data: {type(data).__name__} is no table; give a pandas, Polars or Arrow table")
    except (pa.ArrowException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise DataError(f"data: no table of one kind of value a column ({error})") from error
    folder = cache_directory() / "tables"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".table.")
        os.close(handle)
        pq.write_table(table, temporary)
        target = folder / f"{sha256_of(Path(temporary))[:32]}.parquet"
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error}; free some room, or set ONDEVICE_CACHE to a folder that can be written"
        ) from error
    return str(target)
