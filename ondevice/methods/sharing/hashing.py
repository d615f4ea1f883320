"""The hashing trick: values share rows at random, and no vocabulary has to be stored."""

from __future__ import annotations

import torch
from torch import Tensor

from ondevice.config.budget import parse_budget
from ondevice.config.sections import Config
from ondevice.data.key_hash import key_hashes
from ondevice.errors import BudgetTooSmall, ConfigError
from ondevice.forms.shared import SharedMap
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS, Method


@METHODS.register("hashing")
class Hashing(Method):
    """A field of many values reads row hash(key) mod m of its table, which several values then share.

    Weinberger et al. 2009 (arXiv 0902.2206), unsigned, for each field by itself. All fields get at most the same
    number of rows m, the largest that the budget allows; a field with no more than m values keeps a row for each
    and is not hashed (DLRM's ``--max-ind-range``).

    Args:
        dim: values per row.
    """

    ships_as_selected = True

    def __init__(
        self, info: TableInfo, embedding_dim: int, *, init_std: float | None = None, dim: int = 8
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        if dim < 1:
            raise ConfigError(f"compact.sizes.dim: got {dim}; it must be at least 1")
        self.dim = min(dim, embedding_dim)
        self._hashes: Tensor | None = None

    def check(self, config: Config) -> None:
        if config.compact.store.codes is not None:
            raise ConfigError(
                "compact.store.name: got 'codes', but method 'hashing' shares rows, which are stored as int8 values; "
                "set compact.store=int8"
            )
        if config.compact.train.elastic:
            raise ConfigError(
                "compact.train.elastic: method 'hashing' shares rows by a modulus for each budget, so that a smaller "
                "model is no part of a larger one; set compact.train.elastic=false"
            )
        in_bytes = [b for b in config.compact.budgets if parse_budget(b)[0] == "bytes"]
        if in_bytes:
            raise ConfigError(
                f"compact.budgets: {in_bytes[0]} is in bytes, which are met by sizes, but method 'hashing' "
                "shares rows; give a number of values or a share"
            )

    def compact(self, target: int | None = None) -> SharedMap:
        """At most ``target`` values: m rows of ``dim`` values, fewer values where not even one row a field fits.

        Raises: UserError: when there are more fields than values.
        """
        info = self.info
        seen = [
            torch.nonzero(part > 0).squeeze(1)
            for part in info.counts.split(info.field_offsets.diff().tolist())
        ]
        fields = sum(1 for rows in seen if len(rows))
        budget = info.num_embeddings * self.dim if target is None else target
        dim = min(self.dim, budget // max(1, fields))
        if dim < 1:
            raise BudgetTooSmall(
                f"method hashing: {target} values are fewer than the {fields} fields; allow more"
            )
        low, high = 1, max(len(rows) for rows in seen)
        while low < high:
            middle = (low + high + 1) // 2
            # a row for unknown values, where training saw some, counts as one of its field's
            fits = sum(min(len(rows), middle) for rows in seen) * dim <= budget
            low, high = (middle, high) if fits else (low, middle - 1)
        return self._shared(seen, low, dim)

    def _shared(self, seen: list[Tensor], limit: int, dim: int) -> SharedMap:
        info = self.info
        sizes = torch.zeros(info.num_embeddings, dtype=torch.int64)
        shared = torch.arange(info.num_embeddings)
        modulus = torch.zeros(info.num_fields, dtype=torch.int64)
        if self._hashes is None:
            self._hashes = torch.from_numpy(key_hashes(text or "" for text in info.key_texts()))
        for field, begin in enumerate(info.field_offsets[:-1].tolist()):
            seen_ids = seen[field] + begin
            if len(seen_ids) <= limit:
                sizes[seen_ids] = dim
                continue
            has_unknown = int(seen_ids[0]) == begin
            # the values that lend the table their places
            rows = seen_ids[has_unknown : max(limit, 1 + has_unknown)]
            sizes[rows] = dim
            if has_unknown and limit > 1:
                sizes[begin] = dim
            known = slice(begin + 1, int(info.field_offsets[field + 1]))
            shared[known] = rows[self._hashes[known] % len(rows)]
            modulus[field] = len(rows)
        return SharedMap(sizes, self.embedding_dim, shared, modulus)
