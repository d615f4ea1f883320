"""What every form must do: made up by hand, or by a method that ends in it, then trained, packed and exported.

A form that a user's own module registers is held to the same: `CHECKS` take its name, once the module is imported.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ondevice.bundle.estimate import bundle_bytes
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms import FORMS, Form
from ondevice.forms.base import LAYOUTS, CompactTable
from ondevice.forms.codes import Codes
from ondevice.forms.grid import Grid
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.program.pack import pack
from ondevice.recommender import Recommender, rebuild
from ondevice.training.checkpoint import load_recommender, save_recommender

from ..program import shop

if TYPE_CHECKING:
    from ondevice.program.export import Exported

T = TypeVar("T")
DIM = 8
SHARE = 2
"""Of the values of a full table a form keeps at most one in so many."""
ENDPOINTS = ("forward", "rank")
ESTIMATE_SHARE, ESTIMATE_BYTES = 0.02, 0
"""How far an estimate may be above what is written."""


def random_sizes(info: TableInfo, most: int, step: int) -> Tensor:
    """Sizes in steps, larger where training saw more, none for rows that it never saw."""
    share = torch.rand(info.num_embeddings).sqrt() * info.counts.clamp(max=8) / 8
    sizes = (share * (most // step + 1)).long().clamp(max=most // step) * step
    sizes[info.unknown_of().unique()[0]] = 0  # a field whose unknown value keeps nothing, either
    return sizes * (info.counts > 0)


def random_mask(info: TableInfo) -> Tensor:
    kept = torch.rand(info.num_embeddings, DIM) < 0.3
    kept[info.unknown_of().unique()[0]] = False
    return kept & (info.counts > 0)[:, None]


MADE: dict[str, Callable[[TableInfo], Form]] = {
    "sizes": lambda info: Sizes(random_sizes(info, DIM, 2), DIM),
    "positions": lambda info: Mask(random_mask(info)),
    "codes": lambda info: Codes(random_sizes(info, 2 * DIM, 4), DIM, 4),
    "grid": lambda info: Grid(random_sizes(info, DIM, 2), DIM, 2),
}
"""Forms made here, because no method ends in them by itself or what it ends in is too plain."""


def made(name: str, info: TableInfo) -> Form:
    """A form of that name, by hand or by the first method that ends in one when nothing was trained."""
    if name in MADE:
        return MADE[name](info)
    for method in METHODS:
        table = METHODS[method](info, DIM, init_std=0.1)
        with contextlib.suppress(UserError, RuntimeError, NotImplementedError):  # it has to be prepared first
            form = table.compact(info.num_embeddings * DIM // SHARE)
            if isinstance(form, FORMS[name]) and form.kind() == name:
                return form
    raise AssertionError(
        f"form '{name}': no method ends in one untrained; add how one is made to MADE in {__file__}"
    )


@dataclass(frozen=True)
class Case:
    """One form of a table of 3,000 rows, with a factorization machine on it."""

    name: str
    data: Dataset
    form: Form

    @property
    def info(self) -> TableInfo:
        return shop.info(self.data)

    def of(self, form: Form) -> Recommender:
        """A factorization machine under a form, with values that ship."""
        torch.manual_seed(1)
        made = rebuild(self.info, model="fm", model_options={}, forms=[form], init_std=0.3)
        with torch.no_grad():
            made.bias.fill_(0.25)
        table = made.embedding
        if not table.is_final:
            table.begin_codes()  # type: ignore[operator]
        return made.train().eval()

    @cached_property
    def recommender(self) -> Recommender:
        return self.of(self.form)

    @cached_property
    def exported(self) -> Exported:
        pytest.importorskip("executorch", reason="programs are made with ExecuTorch")
        from ondevice.program.export import ExportOptions, export_model

        options = ExportOptions(self.form.layout_name, methods=ENDPOINTS, max_batch=4096)
        return export_model(
            self.recommender,
            self.data,
            name="shop-fm",
            model="fm",
            method="pep",
            options=options,
            check=False,
        )

    def estimate(self, form: Form) -> int:
        """Bytes of the bundle with another form of this table."""
        return bundle_bytes([form], self.recommender.model, self.data, ENDPOINTS)


@cache
def data() -> Dataset:
    return shop.dataset(num_rows=20_000, num_users=4_000, num_films=2_000)


@cache
def case(name: str) -> Case:
    """The case of a form, made once: its export takes seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(name, data(), made(name, shop.info(data())))


def answer(ask: Callable[[], T]) -> tuple[T | None, str]:
    """What was asked for, or the reason why there is none."""
    try:
        return ask(), ""
    except UserError as error:
        return None, str(error)


def same(one: Form, other: Form) -> bool:
    """Whether two forms keep the same, and say the same of it in a file."""
    tensors, others = one.tensors(), other.tensors()
    return (
        one.kind() == other.kind()
        and one.facts() == other.facts()
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[key], others[key]) for key in tensors)
        and torch.equal(one.mask(), other.mask())
        and torch.equal(one.row_sizes(), other.row_sizes())
        and torch.equal(one.read(), other.read())
    )


def says_what_it_keeps(name: str, tmp_path: Path) -> None:
    made = case(name)
    form, count = made.form, made.info.num_embeddings
    assert FORMS[form.kind()] is type(form)
    assert form.layout_name in LAYOUTS
    sizes, mask, read = form.row_sizes(), form.mask(), form.read()
    assert (tuple(sizes.shape), sizes.dtype) == ((count,), torch.int64)
    assert (tuple(mask.shape), mask.dtype) == ((count, form.dim), torch.bool)
    assert 0 < form.width <= form.dim
    assert 0 < form.num_kept() <= int(sizes.sum()), (
        "ids may have values in common, and none that nobody reads"
    )
    assert (tuple(read.shape), read.dtype) == ((count,), torch.int64)
    field_of = made.info.field_of()
    assert torch.equal(field_of[read], field_of), "ids read rows of their own field"
    assert not bool(mask[sizes == 0].any())


def is_read_back_from_a_file(name: str, tmp_path: Path) -> None:
    made = case(name)
    form = made.form
    tensors = load_safetensors(save_safetensors({k: v.contiguous() for k, v in form.tensors().items()}))
    again = FORMS[name].of_tensors(tensors, json.loads(json.dumps(form.facts())))
    assert same(form, again)
    assert not form.tensors().keys() & made.recommender.embedding.values().keys(), "one file holds both"
    save_recommender(tmp_path / "saved", made.recommender, "fm", {})
    read = load_recommender(tmp_path / "saved", made.info)
    assert same(read.forms()[0], made.recommender.forms()[0])
    ids = shop.all_ids(made.data, 5000)
    with torch.no_grad():
        assert torch.equal(read(ids), made.recommender(ids))


def goes_without_rows(name: str, tmp_path: Path) -> None:
    made = case(name)
    form = made.form
    rows = torch.arange(made.info.num_embeddings) % 3 == 0
    less = form.without(rows)
    assert less.kind() == name
    assert not bool(less.row_sizes()[rows].any())
    assert 0 < less.num_kept() < form.num_kept()
    assert bool((less.mask() <= form.mask()).all())
    assert same(form.without(torch.zeros_like(rows)), form)
    assert form.without(torch.ones_like(rows)).num_kept() == 0


def has_smaller_versions_or_says_so(name: str, tmp_path: Path) -> None:
    made = case(name)
    form = made.form
    smaller = form.without(torch.arange(made.info.num_embeddings) % 3 == 0)
    part, refused = answer(lambda: smaller.within(form))
    if part is None:
        assert f"a table of {name} has no smaller versions; set" in refused
        return
    assert part.kind() == name
    assert torch.equal(part.row_sizes(), smaller.row_sizes())
    assert torch.equal(form.within(smaller).row_sizes(), smaller.row_sizes())
    width = min(part.mask().shape[1], form.mask().shape[1])
    assert bool((part.mask()[:, :width] <= form.mask()[:, :width]).all())


def stands_in_each_layout_or_says_so(name: str, tmp_path: Path) -> None:
    """Whatever layout it can have, packed equals eager on every id: kept, shared, pruned, unseen and unknown."""
    made = case(name)
    assert made.form.laid_out(made.form.layout_name) is made.form
    ids = shop.all_ids(made.data, 5000)
    with torch.no_grad():
        eager = made.recommender(ids)
    assert float((eager - eager.mean()).abs().max()) > 0.5, "a model that says something"
    for layout in LAYOUTS:
        texts = made.data.vocabulary.key_texts()
        packed, refused = answer(lambda: pack(made.recommender, layout, texts))  # noqa: B023
        if packed is None:
            assert layout != made.form.layout_name
            assert f"layout {layout} cannot hold the {name}" in refused
            continue
        with torch.no_grad():
            torch.testing.assert_close(packed(packed.order.rows(ids)), eager, atol=1e-5, rtol=1e-5)


def trains_what_it_keeps(name: str, tmp_path: Path) -> None:
    """Kept values get gradients and move; the others are zero and stay so."""
    made = case(name)
    table = made.form.table(made.info, init_std=0.1)
    assert isinstance(table, CompactTable)
    assert table.embedding_dim == made.form.width
    optimizer = torch.optim.Adam(table.parameters(), lr=0.01, weight_decay=0.1)
    before = table.table().clone()
    ids = shop.all_ids(made.data, 5000)
    for _ in range(3):
        optimizer.zero_grad()
        (table(ids) - 1).square().sum().backward()
        optimizer.step()
    kept = table.form.mask()[:, : made.form.width]
    after = table.table()
    assert not bool(after[~kept].any())
    read = torch.zeros(made.info.num_embeddings, dtype=torch.bool)
    read[ids.unique()] = True
    moved = kept & read[:, None]
    assert bool((after != before)[moved].all())
    assert table.num_kept() == made.form.num_kept()


def is_exported_as_it_is_packed(name: str, tmp_path: Path) -> None:
    """The program on real rows and on all ids against what was lowered; unknown raw values against the unknown ids."""
    made = case(name)
    exported, order = made.exported, made.exported.packed.order
    from ondevice.program.export import PROGRAM_TOLERANCE  # needs ExecuTorch, as the line above

    bundle = exported.bundle.write(tmp_path / "bundle")
    bundle.check_golden()
    ids = torch.cat(
        [shop.all_ids(made.data, 5000), torch.from_numpy(np.array(made.data.test.ids[:1000], dtype=np.int64))]
    )
    rows = order.rows(ids)
    with torch.no_grad():
        lowered = torch.sigmoid(exported.quantized(rows)).numpy()
    assert float(np.abs(bundle.score_rows(rows.numpy()) - lowered).max()) <= PROGRAM_TOLERANCE / 2

    assert bundle.encode({}).tolist() == order.unknown_rows.tolist()
    unknown = made.info.field_offsets[:-1][None]
    with torch.no_grad():
        eager = torch.sigmoid(made.recommender(unknown)).item()
    assert bundle.score({}) == pytest.approx([eager], abs=PROGRAM_TOLERANCE)
    texts = made.data.vocabulary.key_texts()
    for field, (begin, end) in enumerate(pairwise(made.data.vocabulary.field_offsets.tolist())):
        result = [bundle.vocabulary.row(field, texts[i]) for i in range(begin, end, 7)]
        assert result == order.row_of[begin:end:7].tolist()


def is_estimated(name: str, tmp_path: Path) -> None:
    """Never above a budget, so that one holds, and little below it, so that one is used."""
    made = case(name)
    written, estimate = made.exported.bundle.total_bytes, made.estimate(made.form)
    allowed = ESTIMATE_SHARE * written + ESTIMATE_BYTES
    print(name, written, estimate, estimate - written, made.exported.byte_parts())
    assert 0 <= estimate - written <= allowed, (estimate, written, made.exported.byte_parts())


def keeps_a_budget(name: str, tmp_path: Path) -> None:
    """Estimates fall with the rows, down to the one that a budget allows; what is then packed holds no more values."""
    made = case(name)
    ranks = torch.argsort(torch.argsort(made.info.counts, descending=True, stable=True))
    budget = made.estimate(made.form) * 3 // 4
    low, high = 0, made.info.num_embeddings
    while high - low > 1:
        middle = (low + high) // 2
        fits = made.estimate(made.form.without(ranks >= middle)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    form = made.form.without(ranks >= low)
    assert 0.95 * budget <= made.estimate(form) <= budget
    recommender = made.of(form)
    packed = pack(recommender, form.layout_name, made.data.vocabulary.key_texts())
    ids = shop.all_ids(made.data, 5000)
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), recommender(ids), atol=1e-5, rtol=1e-5)
    whole = pack(made.recommender, form.layout_name, made.data.vocabulary.key_texts())
    assert packed.table.stored_bytes() < whole.table.stored_bytes()


CHECKS: list[Callable[[str, Path], None]] = [
    says_what_it_keeps,
    is_read_back_from_a_file,
    goes_without_rows,
    has_smaller_versions_or_says_so,
    stands_in_each_layout_or_says_so,
    trains_what_it_keeps,
    is_exported_as_it_is_packed,
    is_estimated,
    keeps_a_budget,
]
