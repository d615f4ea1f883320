"""One column of an interaction: its canonical keys, which are the same in training and on the phone."""

from __future__ import annotations

import bisect
import dataclasses
import decimal
import itertools
import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.data.gaps import GAPS
from ondevice.data.keys import INTEGER, integer_key, number_of, string_key
from ondevice.data.slots import POOLINGS
from ondevice.errors import DataError, nearest

SIDES = ("context", "item")
KINDS = ("integer", "string", "number", "history")
LAST = 50  # values of a history, where the schema does not say
TRANSFORMS = ("log_bucket", "log_integer", "hex")

MAX_SLOTS, MAX_BUCKETS = 1000, 10_000
_PLAIN = frozenset((str, int, float, bool, type(None)))
_NO_SCALARS = (bytes, bytearray, memoryview, list, tuple, set, frozenset, dict)
UNKNOWN = "?"  # a raw value that is no number, so that no field of integers knows it

_HEX = re.compile(r"[0-9a-fA-F]{1,15}")


def log_bucket(value: float) -> int:
    """Bucket of a count or a duration: floor(ln(value)^2) above 2, else 1.

    The rule of the winners of the Criteo display advertising challenge.
    """
    return math.floor(math.log(value) ** 2) if value > 2 else 1


def log_integer(value: int) -> int:
    """floor(ln(value)^2) above 2, else the value itself: what AutoInt and PEP feed for Criteo's integers."""
    return log_bucket(value) if value > 2 else value


@dataclass(frozen=True)
class Field:
    """One column of an interaction, as the model sees it.

    Args:
        name: the name that raw rows use.
        side: ``context`` (what is known once per request) or ``item`` (what differs per candidate).
        kind: type of the canonical key, ``integer`` or ``string``; or ``number``, whose key is a bucket's number; or
            ``history``, the values that another field had in this user's earlier rows, newest last.
        column: name in the source; the field's name when absent.
        transform: ``log_bucket`` turns a number into the integer key `log_bucket` (number - origin),
            ``log_integer`` an integer into `log_integer`, ``hex`` a hexadecimal text into the number it writes.
        origin: what ``log_bucket`` subtracts; None means the smallest value of the training split.
        min_count: values rarer than this in the training split share the unknown id.
        missing: key of a missing value (None or an empty text); None: a missing value is unknown.
        slots: above 1, the field has several values: a list, of which as many are taken at most.
        separator: between the values where a text holds them; spaces around each are left out.
        pooling: how the embeddings of several values become one: one of `POOLINGS`.
        buckets: of a ``number``: how many buckets the training split is divided into.
        boundaries: of a ``number``: the smallest of each bucket but the first; None means as the training split says.
        of: of a ``history``: the item field whose values it holds, and whose embeddings it reads.
        last: of a ``history``: how many of the latest values it holds; None means `LAST`.
        only: of a ``history``: ``positive`` takes the rows whose label is 1, ``negative`` those whose label is 0; None
            takes them all.
        gaps: of a ``history``: whether a model of the next item reads the time between its items, too, ``since`` the
            one before or ``until`` the next; None: no.
    """

    name: str
    side: str
    kind: str
    column: str | None = None
    transform: str | None = None
    origin: float | None = 0.0
    min_count: int = 1
    missing: int | None = None
    slots: int = 1
    separator: str | None = None
    pooling: str = "mean"
    buckets: int = 32
    boundaries: tuple[float, ...] | None = None
    of: str | None = None
    last: int | None = None
    only: str | None = None
    gaps: str | None = None

    def __post_init__(self) -> None:
        where = f"field '{self.name}'"
        if not isinstance(self.name, str) or not self.name:
            raise DataError(f"a field's name must be a non-empty text, got {self.name!r}")
        for option, value, allowed in (("side", self.side, SIDES), ("kind", self.kind, KINDS)):
            if value not in allowed:
                raise DataError(f"{where}: {option} '{value}' is unknown {nearest(value, allowed)}")
        if self.column is not None and (not isinstance(self.column, str) or not self.column):
            raise DataError(f"{where}: column must be a non-empty text, got {self.column!r}")
        if self.transform is not None and self.transform not in TRANSFORMS:
            raise DataError(
                f"{where}: transform '{self.transform}' is unknown {nearest(self.transform, TRANSFORMS)}"
            )
        if self.transform is not None and self.kind != "integer":
            raise DataError(f"{where}: transform '{self.transform}' makes integer keys; write kind: integer")
        if self.transform != "log_bucket" and self.origin != 0:
            raise DataError(f"{where}: origin has no meaning without a transform log_bucket; remove it")
        if self.origin is not None and (not is_number(self.origin) or not math.isfinite(self.origin)):
            raise DataError(f"{where}: origin must be a finite number or null, got {self.origin!r}")
        if not is_whole(self.min_count) or self.min_count < 1:
            raise DataError(
                f"{where}: min_count must be a whole number of at least 1, got {self.min_count!r}"
            )
        if self.missing is not None and not (is_whole(self.missing) and self.kind == "integer"):
            raise DataError(f"{where}: missing must be a whole number, of a field of kind integer, or null")
        self._check_history(where)
        self._check_slots(where)
        self._check_buckets(where)

    def _check_history(self, where: str) -> None:
        if not self.is_history:
            if any(option is not None for option in (self.of, self.last, self.only, self.gaps)):
                raise DataError(f"{where}: of, last, only and gaps are for histories; write kind: history")
            return
        if not isinstance(self.of, str) or not self.of:
            raise DataError(f"{where}: a history needs of, the field whose values it holds; got {self.of!r}")
        last = LAST if self.last is None else self.last
        if not is_whole(last) or not 1 <= last <= MAX_SLOTS:
            raise DataError(f"{where}: last must be a whole number of 1 to {MAX_SLOTS}, got {last!r}")
        if self.only not in (None, "positive", "negative"):
            raise DataError(f"{where}: only must be positive, negative or absent, got {self.only!r}")
        if self.gaps not in (None, *GAPS):
            raise DataError(f"{where}: gaps must be {', '.join(GAPS)} or absent, got {self.gaps!r}")
        if self.side != "context":
            raise DataError(f"{where}: a history belongs to the one who asks; write side: context")
        if self.column is not None or self.min_count != 1 or self.separator is not None:
            raise DataError(
                f"{where}: a history is made of the rows of field '{self.of}'; remove column, min_count, separator"
            )
        if self.slots not in (1, last):
            raise DataError(f"{where}: slots are as many as last says, {last}; remove slots")
        object.__setattr__(self, "last", last)
        object.__setattr__(self, "slots", last)

    def _check_slots(self, where: str) -> None:
        if not is_whole(self.slots) or not 1 <= self.slots <= MAX_SLOTS:
            raise DataError(f"{where}: slots must be a whole number of 1 to {MAX_SLOTS}, got {self.slots!r}")
        if self.pooling not in POOLINGS:
            raise DataError(f"{where}: pooling '{self.pooling}' is unknown {nearest(self.pooling, POOLINGS)}")
        if self.separator is not None and (
            not isinstance(self.separator, str) or not self.separator.strip(" ")
        ):
            raise DataError(
                f"{where}: separator must be a text that is not empty or blank, got {self.separator!r}"
            )
        if not self.pools and (self.separator is not None or self.pooling != "mean"):
            raise DataError(
                f"{where}: separator and pooling are for several values; add slots, the most of them"
            )
        if self.pools and (self.kind == "number" or self.transform is not None or self.missing is not None):
            raise DataError(
                f"{where}: several values are of kind integer or string, without transform and missing; remove slots"
            )

    def _check_buckets(self, where: str) -> None:
        if not is_whole(self.buckets) or not 2 <= self.buckets <= MAX_BUCKETS:
            raise DataError(
                f"{where}: buckets must be a whole number of 2 to {MAX_BUCKETS}, got {self.buckets!r}"
            )
        bounds = self.boundaries
        if self.kind != "number" and (self.buckets != 32 or bounds is not None):
            raise DataError(f"{where}: buckets and boundaries are for numbers; write kind: number")
        if self.kind == "number" and self.min_count != 1:
            raise DataError(f"{where}: min_count has no meaning for buckets; remove it")
        if bounds is None:
            return
        listed = isinstance(bounds, (list, tuple)) and all(is_number(b) and math.isfinite(b) for b in bounds)
        if not listed or any(a >= b for a, b in itertools.pairwise(bounds)):
            raise DataError(
                f"{where}: boundaries must be finite numbers that ascend, or null, got {bounds!r}"
            )
        object.__setattr__(self, "boundaries", tuple(float(bound) for bound in bounds))

    @property
    def source_column(self) -> str:
        """The column's name in the source."""
        return self.column if self.column is not None else self.name

    @property
    def is_history(self) -> bool:
        """Whether its values are those of another field in earlier rows: it has no column and no keys."""
        return self.kind == "history"

    @property
    def pools(self) -> bool:
        """Whether its embedding is that of several values."""
        return self.slots > 1 or self.is_history

    @property
    def reads_numbers(self) -> bool:
        """Whether a raw value is a number of which a key is made: its bucket, once what is learnt is known."""
        return self.kind == "number" or self.transform == "log_bucket"

    @property
    def has_integer_keys(self) -> bool:
        """Whether its keys are integers, those of buckets included."""
        return self.kind != "string"

    @property
    def names_values(self) -> bool:
        """Whether a row has one value whose key says which: what names an item or a user, or joins tables."""
        return not self.pools and self.kind != "number"

    def to_dict(self) -> dict[str, Any]:
        """The options by name, without those that later versions brought and that have their default."""
        values = dataclasses.asdict(self)
        defaults = {option.name: option.default for option in dataclasses.fields(self)}
        late = ("slots", "separator", "pooling", "buckets", "boundaries", "of", "last", "only", "gaps")
        if self.is_history:
            del values["slots"]  # what last says
        kept = {name: value for name, value in values.items() if name not in late or value != defaults[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    def bag(self, raw: Any) -> tuple[int | str, ...]:
        """The distinct canonical keys of several values, in their order: a list of them, or a text with separators.

        Missing ones are left out, and what has no key. Only the first ``slots`` are taken by `kept`.

        Raises: UserError: for an element that is no single value.
        """
        keys = (self.key(each) for each in self.elements(raw))
        return tuple(dict.fromkeys(key for key in keys if key is not None))

    def kept(self, raw: Any) -> tuple[int | str, ...]:
        """The keys of `bag` that get a slot."""
        return self.bag(raw)[: self.slots]

    def sequence(self, raw: Any) -> list[int | str]:
        """The canonical keys of a list of values in its order, repeated ones too; those that have none left out."""
        keys = (self.key(each) for each in ([] if raw is None else self.elements(raw)))
        return [key for key in keys if key is not None]

    def elements(self, raw: Any) -> Sequence[Any]:
        """The single raw values that a raw value of several holds."""
        if isinstance(raw, str):
            return (
                [each.strip(" ") for each in raw.split(self.separator)]
                if self.separator is not None
                else [raw]
            )
        if isinstance(raw, (list, tuple, set, frozenset)):
            return sorted(raw, key=str) if isinstance(raw, (set, frozenset)) else raw
        if getattr(raw, "ndim", None) == 1 and hasattr(raw, "tolist"):
            listed: list[Any] = raw.tolist()
            return listed
        return [raw]

    def key(self, raw: Any) -> int | str | None:
        """Canonical key of a raw value; None stands for unknown (missing, unparsable, not a number).

        Integers: 25, 25.0, "25" and " 25 " are one key. Strings keep every character ("02138" is not
        2138). None, NaN and an empty text are missing: unknown, or the key ``missing``. A scalar of NumPy, torch
        or pandas and a Decimal have the key of the number or text that they hold.

        Raises: UserError: for what is no single value: a list, an array, bytes.
        """
        if type(raw) not in _PLAIN:
            raw = self.scalar(raw)
        if raw is None or raw == "" or raw != raw:
            return self.missing
        if self.transform == "hex":
            return int(raw, 16) if isinstance(raw, str) and _HEX.fullmatch(raw) else None
        if self.transform == "log_integer":
            value = integer_key(raw)
            return None if value is None else log_integer(value)
        if self.transform == "log_bucket":
            if self.origin is None:
                raise ValueError(
                    f"field '{self.name}': the origin is not known before a vocabulary is fitted"
                )
            number = number_of(raw)
            return None if number is None else log_bucket(number - self.origin)
        if self.kind == "number":
            if self.boundaries is None:
                raise ValueError(
                    f"field '{self.name}': boundaries are not known before a vocabulary is fitted"
                )
            number = number_of(raw)
            return None if number is None else bisect.bisect_right(self.boundaries, number)
        return integer_key(raw) if self.kind == "integer" else string_key(raw)

    def is_foreign(self, raw: Any) -> bool:
        """Whether a text without a key stands where keys are integers: a mistake, not a missing value."""
        if not self.has_integer_keys:
            return False
        texts = self.elements(raw) if self.slots > 1 else [raw]
        return any(isinstance(t, str) and t not in ("", UNKNOWN) and self.key(t) is None for t in texts)

    def trouble(self, raw: Any) -> str | None:
        """Why a value that is not missing has no key; None where it has one, or is missing."""
        values = self.elements(raw) if self.slots > 1 else [raw]
        return next(filter(None, map(self._trouble_of_one, values)), None)

    def _trouble_of_one(self, raw: Any) -> str | None:
        raw = self.scalar(raw)
        if raw is None or raw == "" or raw != raw:
            return None
        if self.reads_numbers:
            return (
                None if number_of(raw) is not None else f"column '{self.source_column}': {raw!r} is no number"
            )
        if self.key(raw) is not None:
            return None
        what = f"column '{self.source_column}': {raw!r}"
        if self.transform == "hex":
            return f"{what} is not 1 to 15 hexadecimal digits"
        if self.kind == "string":
            return f"{what} is not finite"
        whole = isinstance(raw, numbers.Integral) or (isinstance(raw, str) and INTEGER.fullmatch(raw))
        trouble = "does not fit into 64 bits" if whole else "is not a whole number"
        return f"{what} {trouble}; where values are names or codes, write kind: string"

    def scalar(self, raw: Any) -> Any:
        """The number, text or None that a value is. Raises UserError for what is no single value."""
        if type(raw) in _PLAIN:
            return raw
        if isinstance(raw, decimal.Decimal):
            if not raw.is_finite():
                return None if raw.is_nan() else math.inf
            return int(raw) if raw == raw.to_integral_value() else format(raw.normalize(), "f")
        if type(raw).__name__ in ("NAType", "NaTType"):  # of pandas, which need not be there
            return None
        if getattr(raw, "ndim", None) == 0 and hasattr(raw, "item"):
            return self.scalar(raw.item())
        if isinstance(raw, _NO_SCALARS) or hasattr(raw, "ndim"):
            hint = "; decode it to a text first" if isinstance(raw, (bytes, bytearray)) else ""
            raise DataError(
                f"field '{self.name}': needs one number or text, got {type(raw).__name__} {raw!r}{hint}"
            )
        return raw

    def keys(self, raws: Sequence[Any]) -> list[int | str | None]:
        """Canonical keys of many raw values."""
        key = self.key
        return [key(raw) for raw in raws]

    def raw(self, key: int | str | None) -> int | float | str | None:
        """A raw value whose canonical key is ``key``; an unknown one for the key None."""
        if key is None:
            return None if self.missing is None else UNKNOWN
        if key == self.missing:
            return None
        if self.kind == "number":
            return self._number_in(int(key))
        if self.transform is None or (self.transform == "log_integer" and int(key) <= 2):
            return key
        if self.transform == "hex":
            return f"{key:08x}"
        assert self.origin is not None
        assert isinstance(key, int)
        middle = self.origin + math.exp(math.sqrt(key + 0.5))
        for candidate in (round(middle), middle, self.origin + math.exp(math.sqrt(key + 0.25))):
            if self.key(candidate) == key:
                return candidate
        raise ValueError(f"field '{self.name}': no number has the bucket {key}")

    def _number_in(self, bucket: int) -> int | float:
        """A number in a bucket: its smallest one, or one below all boundaries."""
        bounds = self.boundaries
        if not bounds:
            return 0
        number = bounds[bucket - 1] if bucket else float(np.nextafter(bounds[0], -np.inf))
        if bucket == 0 and bounds[0] - 1 < bounds[0]:
            number = bounds[0] - 1
        return int(number) if number.is_integer() else number


def is_whole(value: Any) -> bool:
    """Whether a value is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
