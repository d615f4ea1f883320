"""All rows of a table at once, for what chunk by chunk cannot be done: order them, divide them so, draw negatives."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from ondevice.data.negatives import Pairs, sample_negatives
from ondevice.data.preparation.division import DIVISION, division_of, split_of_rows
from ondevice.data.preparation.encode import ALL_IDS
from ondevice.data.preparation.plan import Plan, open_chunk, starts_of
from ondevice.data.report import tell_repeated
from ondevice.data.sequences import Histories, Timeline, write_sequences
from ondevice.data.slots import BLOCK_ROWS
from ondevice.data.sources import say
from ondevice.data.splits import SPLITS, sample_rows, split_rows
from ondevice.data.times import doubts
from ondevice.errors import ConfigError

ROW_BYTES = 130  # of memory for each row


class Whole:
    """The rows of all chunks of a plan, in the order of the files.

    Args:
        plan: a preparation, whose rows are all read.
        memory: bytes that may be taken; None: as many as there are.

    Raises: ConfigError: where the rows take more memory.
    """

    def __init__(self, plan: Plan, memory: int | None) -> None:
        self.plan = plan
        self.num_rows = plan.parsed.num_rows
        if memory is not None and self.num_rows * ROW_BYTES > memory:
            raise ConfigError(
                f"data.memory: got {memory / 1e9:.2g}GB, but histories, sampled negatives and leave_last_out sort "
                f"all {self.num_rows:,} rows in {self.num_rows * ROW_BYTES / 1e9:.2g}GB; allow that, or do without"
            )
        self.codes = cache(self._codes)  # type: ignore[method-assign]

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) uint8."""
        return np.concatenate([open_chunk(self.plan, which).labels() for which in self.plan.parsed.ids])

    @cached_property
    def weights(self) -> np.ndarray | None:
        """(n,) float32, where the table has them."""
        if not self.plan.weighted:
            return None
        return np.concatenate([open_chunk(self.plan, which).weights() for which in self.plan.parsed.ids])  # type: ignore[misc]

    @cached_property
    def order(self) -> tuple[np.ndarray, ...]:
        """Arrays (n,) that sort the rows in time, the most significant first."""
        parts = [open_chunk(self.plan, which).order() for which in self.plan.parsed.ids]
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    def _codes(self, name: str) -> tuple[np.ndarray, list[Any]]:
        """Per row the number (int64) of its key of a field, in the order in which keys come, or -1; and the keys."""
        import pyarrow as pa

        field = [each.name for each in self.plan.schema.stored].index(name)
        chunks = [open_chunk(self.plan, which) for which in self.plan.parsed.ids]
        encoded = pa.concat_arrays([chunk.keys(field) for chunk in chunks]).dictionary_encode()
        numbers, keys = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
        starts = starts_of(np.array([chunk.num_keys[field] for chunk in chunks]))
        rows = np.concatenate(
            [
                np.append(-1, numbers[a:b])[chunk.codes(field)]
                for chunk, a, b in zip(chunks, starts, starts[1:], strict=False)
            ]
        )
        known = rows[rows >= 0]
        first = np.full(len(keys), len(rows), dtype=np.int64)
        np.minimum.at(first, known, np.flatnonzero(rows >= 0))
        ranked = np.argsort(first, kind="stable")
        place = np.append(np.argsort(ranked), -1)  # a code of -1 reads the last
        return place[rows].astype(np.int64), [keys[number] for number in ranked.tolist()]

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Rows of each split, in the order of the store. Raises UserError where one would be empty."""
        plan, schema = self.plan, self.plan.schema
        kept = None if plan.streamed else sample_rows(self.num_rows, plan.max_rows, plan.seed)
        kept = np.arange(self.num_rows) if kept is None else kept
        if schema.label.positive_only:
            kept = self._with_user_and_item(kept)
        given = plan.source["given"]
        division = (
            None
            if given is None
            else np.repeat(
                np.array([given[which.file] for which in plan.parsed.ids], dtype=np.uint8), plan.parsed.rows
            )
        )
        if plan.streamed and plan.split == "random":
            each = zip(plan.parsed.ids, division_of(plan), strict=True)
            parts = [split_of_rows(plan, open_chunk(plan, which), which, facts) for which, facts in each]
            division = np.concatenate(parts)[kept]
            return {name: kept[division == number] for number, name in enumerate(SPLITS)}
        user = plan.spec.user
        chosen = split_rows(
            len(kept),
            plan.split,
            plan.seed,
            plan.fractions,
            tuple(times[kept] for times in self.order),
            groups=[self.codes(name)[0][kept] + 1 for name in plan.group],
            users=self.codes(user)[0][kept] if user is not None and plan.split == "leave_last_out" else None,
            division=None if division is None else division[kept],
        )
        rows = {name: kept[np.sort(places) if plan.streamed else places] for name, places in chosen.items()}
        if plan.split == "random" and not plan.group:
            tell_repeated(schema, lambda name: self.codes(name)[0] + 1, rows, user)
        return rows

    @property
    def user_rows(self) -> np.ndarray:
        """(n,) the number of each row's user, -1 where none is known or the row is in no split."""
        assert self.plan.spec.user is not None  # `check_histories`
        return np.where(self.division < len(SPLITS), self.codes(self.plan.spec.user)[0], -1)

    @cached_property
    def division(self) -> np.ndarray:
        """(n,) uint8: 0 train, 1 valid, 2 test, 3 none."""
        division = np.full(self.num_rows, len(SPLITS), dtype=np.uint8)
        for number, name in enumerate(SPLITS):
            division[self.rows[name]] = number
        return division

    def divide(self) -> None:
        """Write the split of each row where `count_chunk` reads it."""
        times = self.order[0] if self.order else np.empty(0)
        if len(times) and (doubt := doubts(str(self.plan.spec.split.time), times.min(), times.max())):
            say(f"{self.plan.schema.name}: {doubt}")
        np.save(self.plan.folder / DIVISION, self.division, allow_pickle=False)

    def _with_user_and_item(self, kept: np.ndarray) -> np.ndarray:
        """The rows that name both a user and an item: of the others nothing is known that could be negative."""
        schema, there = self.plan.schema, np.ones(len(kept), dtype=bool)
        for name in (schema.item_key, schema.label.context_key):
            named = self.codes(str(name))[0][kept] >= 0
            if not named.all():
                gone = int((~named).sum())
                say(f"{schema.name}: {gone} rows without '{name}' left out; label.positive_only needs it")
            there &= named
        return kept[there]

    def write_splits(self, offsets: np.ndarray) -> tuple[dict[str, Pairs], dict[int, Histories]]:
        """Write the ids, labels and weights of each split, and the sequences, once all rows are encoded.

        Args:
            offsets: first id of each field.

        Returns: the rows that each split has, and what each history holds, by the place of its field.
        """
        plan, schema = self.plan, self.plan.schema
        ids = np.load(plan.folder / ALL_IDS, mmap_mode="r", allow_pickle=False)
        labels, weights = self.labels, self.weights
        if schema.label.positive_only:
            items, contexts = (self.codes(str(n))[0] for n in (schema.item_key, schema.label.context_key))
            pairs = sample_negatives(schema, items, contexts, self.rows, plan.seed)
        else:
            pairs = {name: Pairs(rows, rows, labels[rows]) for name, rows in self.rows.items()}
        if weights is not None:
            pairs = {name: replace(pair, weights=weights[pair.context_rows]) for name, pair in pairs.items()}
        histories: dict[int, Histories] = {}
        if schema.histories:
            say(f"{schema.name}: sorting the rows of each user")
            source = schema.names.index(str(schema.histories[0].of))
            source_ids = np.array(ids[:, schema.slots.starts[source]])
            keys = np.array(self.codes(str(plan.spec.user))[1])
            timeline, unknown = Timeline(self.user_rows, self.order), int(offsets[source])
            histories = write_sequences(
                plan.store, schema, timeline, source_ids, labels, self.division, unknown, keys
            )
        for name, pair in pairs.items():
            self._write_split(name, ids, pair, histories)
        return pairs, histories

    def _write_split(self, name: str, ids: np.ndarray, pairs: Pairs, histories: dict[int, Histories]) -> None:
        schema, folder, slots = self.plan.schema, self.plan.store, self.plan.schema.slots
        stored = np.lib.format.open_memmap(
            folder / f"{name}.ids.npy", mode="w+", dtype=np.int32, shape=(len(pairs.labels), slots.total)
        )
        for start in range(0, len(stored), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            stored[block] = ids[pairs.context_rows[block]]
            if pairs.item_rows is not pairs.context_rows:
                stored[block, schema.item_columns] = ids[pairs.item_rows[block]][:, schema.item_columns]
            for f, history in histories.items():
                columns = slice(slots.starts[f], slots.starts[f + 1])
                stored[block, columns] = history.ids(pairs.context_rows[block])
        stored.flush()
        np.save(folder / f"{name}.labels.npy", pairs.labels.astype(np.uint8), allow_pickle=False)
        if pairs.weights is not None:
            np.save(folder / f"{name}.weights.npy", pairs.weights.astype(np.float32), allow_pickle=False)
