"""Checkpoints and saved recommenders: whole, safe to read, and the same when read back."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from ondevice import next_item
from ondevice.errors import UserError
from ondevice.forms.base import Form
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.models import MODELS
from ondevice.recommender import Recommender, rebuild
from ondevice.training.checkpoint import (
    load_next_item,
    load_recommender,
    load_state,
    save_next_item,
    save_recommender,
    save_state,
)

from ..world import CPU, World

OPTIONS = {"hidden": (8,), "dropout": 0.1}
KINDS = ["full", "sizes", "positions", "pep"]


def recommender(world: World, kind: str, model: str = "deepfm") -> Recommender:
    """One of each form; batch norm has seen data."""
    if kind in ("full", "pep"):
        made = world.recommender("pep" if kind == "pep" else "uniform")
        if kind == "pep":
            made.embedding.s.data.fill_(-3.0)
    else:
        count = world.info.num_embeddings
        embedding: Form = Sizes(torch.arange(count) % 4, 4)
        if kind == "positions":
            embedding = Mask(torch.rand(count, 4) < 0.4)
        forms = [embedding, Sizes((embedding.row_sizes() > 1).long(), 1)]
        options = OPTIONS if model != "fm" else {}
        made = rebuild(world.info, model=model, model_options=options, forms=forms)
    for _, ids, _ in world.batches().epoch(0):
        made(ids)
    made.bias.data.fill_(0.5)
    return made.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_recommender_reads_back(world: World, tmp_path: Path, kind: str) -> None:
    one = recommender(world, kind)
    save_recommender(tmp_path / "model", one, "deepfm", OPTIONS)
    other = load_recommender(tmp_path / "model", world.info)
    ids = torch.tensor(world.test.ids).long()
    torch.testing.assert_close(other(ids), one(ids), rtol=1e-6, atol=1e-6)
    assert not other.training
    if kind in ("sizes", "positions"):
        assert other.num_kept() == one.num_kept()
        assert torch.equal(other.id_map, one.id_map)
        for form, mine in zip(other.forms(), one.forms(), strict=True):
            assert form.kind() == mine.kind()
            assert torch.equal(form.mask(), mine.mask())


@pytest.mark.parametrize("model", MODELS)
def test_every_model_reads_back(world: World, tmp_path: Path, model: str) -> None:
    one = recommender(world, "sizes", model)
    save_recommender(tmp_path / "model", one, model, {} if model == "fm" else OPTIONS)
    ids = torch.tensor(world.test.ids).long()
    torch.testing.assert_close(load_recommender(tmp_path / "model", world.info)(ids), one(ids))


def test_a_folder_without_a_model_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: holds no trained model \(recommender.json is missing\)"):
        load_recommender(tmp_path / "nothing", world.info)


@pytest.mark.parametrize("name", ["model.safetensors", "recommender.json"])
def test_a_damaged_model_is_named(world: World, tmp_path: Path, name: str) -> None:
    save_recommender(tmp_path / "model", recommender(world, "full"), "deepfm", OPTIONS)
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{name}: damaged"):
        load_recommender(tmp_path / "model", world.info)


def test_weights_of_another_version_are_refused_by_name(world: World, tmp_path: Path) -> None:
    """Another version's layers, or the same of other shapes: one line, not what PyTorch says of a state."""
    save_recommender(tmp_path / "model", recommender(world, "full"), "deepfm", OPTIONS)
    path = tmp_path / "model" / "model.safetensors"
    tensors = load(path.read_bytes())
    name = next(name for name in tensors if name.startswith("model."))
    for changed, where in (
        ({"model.leave.weight": torch.zeros(2)}, "leave"),
        ({name: torch.zeros(2, 3)}, name[6:]),
    ):
        path.write_bytes(save({**tensors, **changed}))
        with pytest.raises(UserError, match=rf"a model of another version .*\(weights {where}.* differ\)"):
            load_recommender(tmp_path / "model", world.info)


def test_options_of_another_version_are_refused_by_name(world: World, tmp_path: Path) -> None:
    save_recommender(tmp_path / "rows", recommender(world, "full"), "deepfm", {**OPTIONS, "gates": 2})
    with pytest.raises(UserError, match=r"a model of another version .*model\.gates: .* has no such option"):
        load_recommender(tmp_path / "rows", world.info)
    info = TableInfo(torch.tensor([0, 5]), torch.ones(5, dtype=torch.int64))
    made = next_item.build(info, model="sasrec", model_options={"last": 3}, dim=4)
    save_next_item(tmp_path / "items", made, "sasrec", {"last": 3, "width": 8})
    with pytest.raises(UserError, match=r"a model of another version .*model\.width: .* has no such option"):
        load_next_item(tmp_path / "items", info)


def test_a_state_reads_back(tmp_path: Path) -> None:
    state = {"weights": {"a": torch.arange(3)}, "epoch": 2, "history": [{"auc": 0.5}], "name": "dense"}
    save_state(tmp_path / "checkpoints" / "dense.pt", state)
    result = load_state(tmp_path / "checkpoints" / "dense.pt", CPU)
    assert torch.equal(result.pop("weights")["a"], torch.arange(3))
    assert result == {"epoch": 2, "history": [{"auc": 0.5}], "name": "dense"}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "search.pt"
    save_state(path, {"weights": torch.arange(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"search\.pt: not a readable checkpoint.*delete it to train"):
        load_state(path, CPU)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.touched}",)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    torch.save({"epoch": Malicious(touched)}, tmp_path / "torch.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Malicious(touched)))
    for name in ("torch.pt", "pickle.pt"):
        with pytest.raises(UserError, match=f"{name}: not a readable checkpoint"):
            load_state(tmp_path / name, CPU)
    assert not touched.exists()
