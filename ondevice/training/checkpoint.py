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

from ondevice.errors import UserError
from ondevice.files import atomic_directory, atomic_write
from ondevice.forms.base import Codes, Mask, SharedMap, Sizes
from ondevice.forms.codes import CodedEmbedding
from ondevice.forms.sizes import RetrainedEmbedding, SharedEmbedding
from ondevice.forms.table import EmbeddingMethod, TableInfo
from ondevice.models import MODELS
from ondevice.recommender import Recommender


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
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); delete it to train that phase anew"
        ) from None
    return state


def save_recommender(
    folder: Path, recommender: Recommender, model: str, model_options: dict[str, Any]
) -> None:
    """Write a trained recommender: ``recommender.json`` and ``model.safetensors``.

    Tables are written as the values in effect, with their form, so that any method reads back alike.
    """
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in recommender.model.state_dict().items()}
    tensors["bias"] = recommender.bias.detach()
    if recommender.is_mapped:
        tensors["id_map"] = recommender.id_map
    if recommender.projection is not None:
        tensors["projection"] = recommender.projection.detach()
    tables = []
    for name, table in zip(("embedding", "first_order"), recommender.tables(), strict=False):
        form = table.compact() if isinstance(table, RetrainedEmbedding) else full_form(table)
        entry: dict[str, Any] = {
            "name": name,
            "form": "positions" if isinstance(form, Mask) else "sizes",
            "dim": form.dim,
        }
        if isinstance(form, Mask):
            tensors[f"{name}.kept"] = form.kept
        else:
            tensors[f"{name}.sizes"] = form.row_sizes()
        if isinstance(form, SharedMap):
            entry["form"] = "shared"
            tensors[f"{name}.shared"], tensors[f"{name}.modulus"] = form.shared, form.modulus
        if isinstance(table, CodedEmbedding):
            assert table.is_final, "saved before its codes were learnt"
            entry.update(form="codes", code_dims=table.code_dims)
            tensors[f"{name}.codes"], tensors[f"{name}.codebook"] = table.codes, table.codebook
        else:
            tensors[f"{name}.weight"] = table.table()
        tables.append(entry)
    bits = recommender.model.linear_bits
    description = {"model": model, "model_options": model_options, "linear_bits": bits, "tables": tables}
    content = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_directory(folder) as building:
        (building / "recommender.json").write_text(json.dumps(description, indent=2) + "\n")
        (building / "model.safetensors").write_bytes(save_safetensors(content))


def tensors_of(recommender: Recommender) -> dict[str, Tensor]:
    """The state of a recommender on the CPU, as a file takes it."""
    return {k: v.detach().cpu().contiguous() for k, v in recommender.state_dict().items()}


def full_form(table: EmbeddingMethod) -> Sizes:
    """Every value kept."""
    return Sizes(torch.full((table.num_embeddings,), table.embedding_dim), table.embedding_dim)


def _read(path: Path, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent}: holds no trained model ({path.name} is missing)") from None
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({error}); train the run again in a new directory") from None


def load_recommender(folder: Path, info: TableInfo) -> Recommender:
    """Read a recommender back, in evaluation mode.

    Raises: UserError: when the folder holds none, or a damaged one.
    """
    description = _read(folder / "recommender.json", json.loads)
    tensors = _read(folder / "model.safetensors", load_safetensors)
    tables = [_read_table(info, entry, tensors) for entry in description["tables"]]
    base = MODELS[description["model"]](
        info.num_fields, tables[0].embedding_dim, **description["model_options"]
    )
    base.linear_bits = description.get("linear_bits", base.linear_bits)
    base.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
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


def _read_table(info: TableInfo, entry: dict[str, Any], tensors: dict[str, Tensor]) -> RetrainedEmbedding:
    name = entry["name"]
    if entry["form"] == "codes":
        if entry.get("books"):
            raise UserError(
                "a model of several codebooks, which is no longer read; train the run again in a new directory"
            )
        coded = CodedEmbedding(info, Codes(tensors[f"{name}.sizes"], entry["dim"], entry["code_dims"]))
        coded.set_codes(tensors[f"{name}.codes"], tensors[f"{name}.codebook"])
        return coded
    if entry["form"] == "shared":
        own = {key: tensors[f"{name}.{key}"] for key in ("sizes", "shared", "modulus", "weight")}
        shared = SharedMap(own["sizes"], entry["dim"], own["shared"], own["modulus"])
        return SharedEmbedding(info, shared, initial=own["weight"])
    sizes = tensors.get(f"{name}.sizes")
    form = Mask(tensors[f"{name}.kept"]) if sizes is None else Sizes(sizes, entry["dim"])
    return RetrainedEmbedding(info, form, initial=tensors[f"{name}.weight"])
