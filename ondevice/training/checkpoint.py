"""Checkpoints: written atomically, read without unpickling code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ondevice.errors import ConfigError, DamagedFile, UserError
from ondevice.files import atomic_directory, atomic_write
from ondevice.forms import FORMS
from ondevice.forms.base import CompactTable
from ondevice.forms.table import TableInfo
from ondevice.models import MODELS, BaseModel
from ondevice.models.base import make_model
from ondevice.models.sequences import SEQUENCE_MODELS, SequenceModel
from ondevice.next_item import NextItemRecommender
from ondevice.recommender import Recommender, TableModel
from ondevice.registry import Registry


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, texts and containers of them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises: UserError: when the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise DamagedFile(
            f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to train that phase anew"
        ) from None
    return state


def save_recommender(
    folder: Path, recommender: Recommender, model: str, model_options: dict[str, Any]
) -> None:
    """Write a trained recommender: ``recommender.json`` and ``model.safetensors``.

    Tables are written as the values in effect, with their form, so that any method reads back alike.
    """
    tensors = {"bias": recommender.bias.detach()}
    if recommender.is_mapped:
        tensors["id_map"] = recommender.id_map
    if recommender.projection is not None:
        tensors["projection"] = recommender.projection.detach()
    description = {"model": model, "model_options": model_options}
    _write(folder, recommender, recommender.model, description, tensors)


def save_next_item(
    folder: Path, recommender: NextItemRecommender, model: str, model_options: dict[str, Any]
) -> None:
    """`save_recommender` of a recommender of the next item, whose items have no attributes beside their rows."""
    description: dict[str, Any] = {"sequence_model": model, "model_options": model_options}
    _write(folder, recommender, recommender.model, description, {})


def _write(
    folder: Path,
    recommender: TableModel,
    model: BaseModel | SequenceModel,
    description: dict[str, Any],
    tensors: dict[str, Tensor],
) -> None:
    tensors |= {f"model.{k}": v for k, v in model.state_dict().items()}
    tables = []
    each = zip(("embedding", "first_order"), recommender.tables(), recommender.forms(), strict=False)
    for name, table, form in each:
        tables.append({"name": name, "form": form.kind(), **form.facts()})
        for part, value in (form.tensors() | table.values()).items():
            tensors[f"{name}.{part}"] = value
    description |= {"linear_bits": model.linear_bits, "tables": tables}
    content = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_directory(folder) as building:
        (building / "recommender.json").write_text(json.dumps(description, indent=2) + "\n")
        (building / "model.safetensors").write_bytes(save_safetensors(content))


def load_next_item(folder: Path, info: TableInfo) -> NextItemRecommender:
    """Read a recommender of the next item back, in evaluation mode.

    Args:
        info: of the items.

    Raises: UserError: when the folder holds none, or a damaged one.
    """
    description = _read(folder / "recommender.json", json.loads)
    tensors = _read(folder / "model.safetensors", load_safetensors)
    if "sequence_model" not in description:
        raise UserError(f"{folder}: holds a model of ratings, not of the next item")
    tables = [_read_table(info, entry, tensors) for entry in description["tables"]]
    name, options = description["sequence_model"], description["model_options"]
    _check_options(SEQUENCE_MODELS, name, options, folder)
    model = SEQUENCE_MODELS[name](tables[0].embedding_dim, **options)
    model.linear_bits = description["linear_bits"]
    _take_weights(model, tensors, folder)
    return NextItemRecommender(tables[0], tables[1] if len(tables) > 1 else None, model).eval()


def _check_options(models: Registry[Any], name: str, options: dict[str, Any], folder: Path) -> None:
    """Whether this version knows a stored model and its options."""
    try:
        models.check_options(name, options, "model")
    except ConfigError as error:
        raise _another_version(folder, str(error)) from None


def _take_weights(model: torch.nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    kept = model.state_dict()
    wrong = sorted(kept.keys() ^ weights.keys()) or [k for k in kept if kept[k].shape != weights[k].shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise _another_version(folder, f"weights {', '.join(wrong[:3])}{more} differ")
    model.load_state_dict(weights)


def _another_version(folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder}: holds a model of another version of this program ({why}); train the run again in a new directory, "
        "or use the version that trained it"
    )


def tensors_of(recommender: Recommender) -> dict[str, Tensor]:
    """The state of a recommender on the CPU, as a file takes it."""
    return {k: v.detach().cpu().contiguous() for k, v in recommender.state_dict().items()}


def _read(path: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent}: holds no trained model ({path.name} is missing)") from None
    except (ValueError, SafetensorError) as error:
        raise DamagedFile(f"{path}: damaged ({error}); train the run again in a new directory") from None


def load_recommender(folder: Path, info: TableInfo) -> Recommender:
    """Read a recommender back, in evaluation mode.

    Raises: UserError: when the folder holds none, or a damaged one.
    """
    description = _read(folder / "recommender.json", json.loads)
    tensors = _read(folder / "model.safetensors", load_safetensors)
    if "model" not in description:
        raise UserError(f"{folder}: holds a model of the next item, which has no scores of rows")
    tables = [_read_table(info, entry, tensors) for entry in description["tables"]]
    width, options = tables[0].embedding_dim, description["model_options"]
    _check_options(MODELS, description["model"], options, folder)
    base = make_model(description["model"], info.slots, width, options)
    base.linear_bits = description.get("linear_bits", base.linear_bits)
    _take_weights(base, tensors, folder)
    recommender = Recommender(
        tables[0],
        tables[1] if len(tables) > 1 else None,
        base,
        id_map=tensors.get("id_map"),
        projected="projection" in tensors,
    )
    with torch.no_grad():
        if recommender.projection is not None:
            recommender.projection.copy_(tensors["projection"])
        recommender.bias.copy_(tensors["bias"])
    return recommender.eval()


def _read_table(info: TableInfo, entry: dict[str, Any], tensors: dict[str, Tensor]) -> CompactTable:
    prefix = f"{entry['name']}."
    stored = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    table = FORMS[entry["form"]].of_tensors(stored, entry).table(info)
    table.load_values(stored)
    return table
