"""A run over a history, several values and numbers: sizes and codes by what they do to the loss, and a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ondevice.config.file import from_dict
from ondevice.errors import ConfigError
from ondevice.program.pack import pack
from ondevice.run.directory import Run
from ondevice.run.preflight import check_sides

from ..runs import Make, run

SCHEMA = {
    "name": "bags",
    "fields": [
        {"name": "user", "side": "context", "kind": "integer"},
        {"name": "moods", "side": "context", "kind": "integer", "slots": 2, "separator": ","},
        {"name": "seen", "side": "context", "kind": "history", "of": "item", "last": 3},
        {"name": "item", "side": "item", "kind": "integer"},
        {"name": "tags", "side": "item", "kind": "string", "slots": 3, "separator": "|", "pooling": "sqrt"},
        {"name": "price", "side": "item", "kind": "number", "buckets": 4},
    ],
    "label": {"column": "liked"},
    "item_key": "item",
    "user_key": "user",
    "split": {"time": "at"},
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    random = np.random.default_rng(0)
    lines = ["user,moods,item,tags,price,liked,at"]
    for at in range(600):
        item, user = int(random.integers(0, 20)), int(random.integers(0, 30))
        tags = "|".join(["a", "b", "c"][: item % 4])
        lines.append(
            f'{user},"{user % 3},{user % 4}",{item},{tags},{item / 3:.2f},{random.integers(0, 2)},{at}'
        )
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SCHEMA))
    return {"schema": str(tmp_path / "s.yaml"), "path": str(tmp_path / "t.csv")}


def test_a_run_ends_in_a_compact_model_that_packs(
    tiny_config: Make, tmp_path: Path, files: dict[str, str]
) -> None:
    compact = {
        "budgets": ["60%"],
        "sizes": {"name": "code_saliency"},
        "store": {"name": "codes", "code_dims": 2, "code_choice": "loss", "first_order": "projection"},
        "teach": {"teachers": ["dense"], "pairs": 1.0},
    }
    values = tiny_config(data={"name": "table", **files}, model={"name": "fm"}, compact=compact)
    run(values, tmp_path / "run")
    result = Run(tmp_path / "run")
    model, dataset = result.compact(result.budgets()[0]), result.dataset()
    ids = torch.from_numpy(np.array(dataset.test.ids, dtype=np.int64))
    assert ids.shape[1] == 1 + 2 + 3 + 1 + 3 + 1
    assert model.info.slots.owners == [0, 1, 1, 3, 3, 3, 3, 4, 4, 4, 5]
    packed = pack(model, keys=dataset.vocabulary.key_texts())
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), model(ids), atol=1e-5, rtol=1e-5)


def test_sharded_tables_say_that_they_hold_one_value_a_field(
    tiny_config: Make, files: dict[str, str], tmp_path: Path
) -> None:
    config = from_dict(tiny_config(data={"name": "table", **files}, distributed={"mode": "sharded"}))
    from ondevice.data import load_dataset

    schema = load_dataset("table", **files).schema
    with pytest.raises(ConfigError, match="moods, seen, tags have several; use distributed=ddp"):
        check_sides(config, schema)


def test_a_history_has_no_rows_to_leave_out(tiny_config: Make, files: dict[str, str], tmp_path: Path) -> None:
    values = tiny_config(data={"name": "table", **files}, compact={"skip_fields": ["seen"]})
    with pytest.raises(ConfigError, match="'seen' is a history, which reads the rows of 'item'"):
        run(values, tmp_path / "run")
