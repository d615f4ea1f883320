"""The parts of a store beside its rows: vocabulary, counts, schema, and the record that makes it whole."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from ondevice.data import splits
from ondevice.data.large.arrays import ArrayFile
from ondevice.data.large.plan import Plan, starts_of
from ondevice.data.report import describe_fields, say_report
from ondevice.data.sequences import Histories
from ondevice.data.slots import count_unknown
from ondevice.data.sources import say
from ondevice.data.store import RECORD
from ondevice.data.vocabulary import write_vocabulary
from ondevice.errors import DataError
from ondevice.files import atomic_json


def assemble(plan: Plan, fingerprint: str, rows: np.ndarray, histories: dict[int, Histories]) -> None:
    """Write them into ``plan.store``, which is whole afterwards.

    Args:
        plan: the preparation, all of whose steps are done.
        fingerprint: of the store.
        rows: by chunk and split (C, 3).
        histories: what each history holds, by the place of its field.

    Raises: UserError: when no field has a known value.
    """
    schema, folder = plan.schema, plan.store
    results = [json.loads(plan.field_path(f, "json").read_text()) for f in range(len(schema.fields))]
    learnt = [
        dataclasses.replace(field, boundaries=tuple(result["boundaries"]))
        if "boundaries" in result
        else field
        for field, result in zip(schema.fields, results, strict=True)
    ]
    schema = dataclasses.replace(schema, fields=tuple(learnt))
    read = [each for each in zip(schema.fields, results, strict=True) if not each[0].is_history]
    empty = [field.name for field, result in read if not result["known"]]
    if len(empty) == len(read):
        raise DataError(
            f"data set '{schema.name}': no value occurs often enough in the training rows; lower min_count"
        )
    if empty:
        names = ", ".join(empty)
        say(f"{schema.name}: no value of {names} occurs often enough to be known; each is one unknown id")
    num_rows = rows.sum(axis=0).tolist()
    offsets = starts_of(1 + np.array([result["known"] for result in results]))
    counts = np.lib.format.open_memmap(
        folder / "counts.npy", mode="w+", dtype=np.int64, shape=(int(offsets[-1]),)
    )
    arrays = {}
    for f, (field, result) in enumerate(zip(schema.fields, results, strict=True)):
        counts[offsets[f]] = 0 if field.is_history else num_rows[0] - result["occurrences"]
        counts[offsets[f] + 1 : offsets[f + 1]] = _mapped(plan, f, "counts", np.int64)
        if field.has_integer_keys:
            arrays[f"integers_{f}"] = _mapped(plan, f, "keys", np.int64)
        else:
            arrays[f"bytes_{f}"] = _mapped(plan, f, "keys", np.uint8)
            arrays[f"ends_{f}"] = _mapped(plan, f, "ends", np.int64)
    ids = np.load(folder / "train.ids.npy", mmap_mode="r", allow_pickle=False)
    count_unknown(schema.slots, offsets, ids, counts)
    counts.flush()
    write_vocabulary(folder / "vocabulary.npz", schema.fields, arrays)
    atomic_json(folder / "schema.json", schema.to_dict())
    missing = np.zeros(len(schema.fields), dtype=np.int64)
    for which in plan.parsed.ids:
        missing += ArrayFile(plan.counts_path(which)).meta["missing"]
    cut = list(plan.parsed.cut)
    for f, history in histories.items():
        missing[f], cut[f] = history.num_empty(np.arange(num_rows[0])), history.num_cut
    named = dict(zip(splits.SPLITS, num_rows, strict=True))
    described = describe_fields(schema, offsets, counts, missing.tolist(), cut, max(1, num_rows[0]))
    say_report(schema.name, named, described)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != RECORD}
    record = {
        "fingerprint": fingerprint,
        "rows": named,
        "fields": described,
        "skipped_rows": plan.parsed.skipped,
        "files": files,
    }
    atomic_json(folder / RECORD, record)


def _mapped(plan: Plan, field: int, part: str, dtype: type) -> np.ndarray:
    path = plan.field_path(field, part)
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)
