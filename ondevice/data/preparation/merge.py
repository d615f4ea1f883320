"""A field's vocabulary from the keys of all chunks: sorted runs merged range by range, in bounded memory."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ondevice.data.preparation.arrays import ArrayFile
from ondevice.data.preparation.columns import number_to_keys, numbers_of
from ondevice.data.preparation.plan import Plan, open_chunk, starts_of
from ondevice.data.vocabulary import learnt
from ondevice.files import atomic_json, sync

ENTRY_BYTES = 120  # memory per key of a run while its range is merged, the text itself not counted
SAMPLES = 200_000


def merge_field(plan: Plan, field: int, limit: int) -> dict[str, Any]:
    """Number the keys of a field that occur often enough in training rows, ascending, from 1.

    Every chunk holds its distinct keys ascending. Where all of them together would take more than ``limit``
    bytes, the range of keys is cut where a sample of them says that the parts are of one size, and part after
    part is merged. Writes the known keys, their counts, and for every key of every chunk its number (0:
    unknown), chunk after chunk.

    Returns: {"known", "occurrences"} (of known keys in training rows).
    """
    parsed = plan.parsed
    lengths = parsed.num_keys[:, field]
    starts = starts_of(lengths)
    described = plan.schema.fields[field]
    min_count = 1 if described.reads_numbers else described.min_count
    before_field = parsed.num_keys[:, :field].sum(axis=1)
    known, occurrences, text_end = 0, 0, 0
    plan.field_path(field, "json").parent.mkdir(exist_ok=True)
    with contextlib.ExitStack() as opened:
        files = {
            part: opened.enter_context(open(plan.field_path(field, part), "wb"))
            for part in ("keys", "ends", "counts", "ids")
        }
        for begins, ends in _cuts(plan, field, limit):
            pieces, counts = [], []
            runs = np.flatnonzero(ends > begins).tolist()
            for c in runs:
                start, stop = int(begins[c]), int(ends[c])
                pieces.append(open_chunk(plan, parsed.ids[c]).keys(field, start, stop))
                first = int(before_field[c])
                file = ArrayFile(plan.counts_path(parsed.ids[c]))
                counts.append(file.read("counts", first + start, first + stop))
            if not runs:
                continue
            keys, totals, numbers = _merge(pieces, np.concatenate(counts), min_count)
            numbers[numbers > 0] += known
            place = 0
            for c, piece in zip(runs, pieces, strict=True):
                files["ids"].seek(4 * int(starts[c] + begins[c]))
                files["ids"].write(numbers[place : place + len(piece)].astype(np.int32).data)
                place += len(piece)
            known += len(totals)
            occurrences += int(totals.sum())
            files["counts"].write(totals.data)
            text_end = _write_keys(files, keys, text_end)
        for output in files.values():
            output.flush()
            sync(output.fileno())
    result: dict[str, Any] = {"known": known, "occurrences": occurrences}
    if described.reads_numbers:
        result = _into_buckets(plan, field)
    atomic_json(plan.field_path(field, "json"), result)
    return result


def _into_buckets(plan: Plan, field: int) -> dict[str, Any]:
    """Replace the numbers of a field, merged as keys of their own, by the keys that are made of them.

    Returns: {"known", "occurrences", "learnt"}; the last are options of the field that it left open.
    """
    described = plan.schema.fields[field]
    numbers = numbers_of(np.fromfile(plan.field_path(field, "keys"), dtype=np.int64))
    rows = np.fromfile(plan.field_path(field, "counts"), dtype=np.int64)
    present = numbers > -np.inf
    fitted = learnt(described, numbers[present].tolist(), rows[present])
    known, places = np.unique(number_to_keys(fitted, numbers), return_inverse=True)
    counts = np.bincount(places, weights=rows, minlength=len(known)).astype(np.int64)
    often = counts >= described.min_count
    known, counts = known[often], counts[often]
    with open(plan.field_path(field, "ids"), "wb") as file:
        for which in plan.parsed.ids:
            keys = number_to_keys(fitted, numbers_of(open_chunk(plan, which).keys(field).to_numpy()))
            after = np.searchsorted(known, keys, side="right")
            is_known = np.isin(keys, known)
            file.write(np.where(is_known, after, 0).astype(np.int32).data)
        sync(file.fileno())
    for part, values in (("keys", known.astype(np.int64)), ("counts", counts)):
        values.tofile(plan.field_path(field, part))
    options = {name: getattr(fitted, name) for name in ("origin", "boundaries")}
    changed = {name: value for name, value in options.items() if value != getattr(described, name)}
    return {"known": len(known), "occurrences": int(counts.sum()), "learnt": changed}


def _merge(pieces: list[Any], counts: np.ndarray, min_count: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Known keys ascending (Arrow), their counts, and for each entry its key's number from 1 or 0."""
    import pyarrow as pa
    from pyarrow import compute as pc

    encoded = pa.concat_arrays(pieces).dictionary_encode()
    codes = encoded.indices.to_numpy()
    totals = np.bincount(codes, weights=counts, minlength=len(encoded.dictionary)).astype(np.int64)
    often = np.flatnonzero(totals >= min_count)
    candidates = encoded.dictionary.take(pa.array(often))
    order = pc.array_sort_indices(candidates).to_numpy()
    number_of = np.zeros(len(totals), dtype=np.int64)
    number_of[often[order]] = np.arange(1, len(often) + 1)
    return candidates.take(pa.array(order)), totals[often[order]], number_of[codes]


def _cuts(plan: Plan, field: int, limit: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts of the range of keys: where each begins and ends in every run, (C,) each."""
    import pyarrow as pa

    parsed = plan.parsed
    lengths = parsed.num_keys[:, field].astype(np.int64)
    entries = int(lengths.sum())
    size = entries * ENTRY_BYTES
    is_text = plan.schema.fields[field].kind == "string"
    if is_text:
        size += 2 * sum(open_chunk(plan, which).keys(field).nbytes for which in parsed.ids)
    num_parts = -(-size // limit)
    zeros = np.zeros_like(lengths)
    if num_parts <= 1:
        return [(zeros, lengths)]
    every = max(1, entries // SAMPLES)
    sample: list[Any] = []
    for which in parsed.ids:
        keys = open_chunk(plan, which).keys(field)
        sample += keys.take(pa.array(np.arange(every // 2, len(keys), every))).to_pylist()
    sample.sort()
    splitters = [sample[len(sample) * i // num_parts] for i in range(1, num_parts)]
    bounds = np.empty((len(splitters), len(lengths)), dtype=np.int64)
    for c, which in enumerate(parsed.ids):
        keys = open_chunk(plan, which).keys(field)
        if is_text:
            bounds[:, c] = np.searchsorted(np.array(keys.to_pylist(), dtype=object), splitters)
        else:
            bounds[:, c] = np.searchsorted(keys.to_numpy(), splitters)
    return list(zip([zeros, *bounds], [*bounds, lengths], strict=True))


def _write_keys(files: dict[str, Any], keys: Any, text_end: int) -> int:
    """Append integers, or the bytes of texts and where each ends; returns where the last does."""
    if str(keys.type) == "int64":
        files["keys"].write(np.ascontiguousarray(keys.to_numpy()).data)
        return 0
    _, offsets_buffer, data = keys.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[keys.offset : keys.offset + len(keys) + 1]
    if len(keys):
        files["keys"].write(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
        files["ends"].write((offsets[1:] - offsets[0] + text_end).data)
        text_end += int(offsets[-1] - offsets[0])
    return text_end
