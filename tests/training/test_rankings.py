"""Teachers of the next item: what they say of real and made-up histories."""

from __future__ import annotations

import pytest
import torch

from ondevice import next_item
from ondevice.config.sections import TeachConfig
from ondevice.errors import ConfigError
from ondevice.forms.table import TableInfo
from ondevice.next_item import NextItemRecommender
from ondevice.training.rankings import RankingTeachers

INFO = TableInfo(torch.tensor([0, 7]), torch.ones(7, dtype=torch.int64))
HISTORIES = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 0, 6]])


def teacher(name: str, dim: int, seed: int, last: int = 3) -> NextItemRecommender:
    torch.manual_seed(seed)
    made = next_item.build(INFO, model=name, model_options={"last": last}, dim=dim, init_std=1.0)
    with torch.no_grad():
        made.model.nobody.normal_()
        made.first_order.weight.normal_()  # type: ignore[union-attr]
    return made.eval()


def test_places_are_told_what_the_mean_of_the_teachers_says() -> None:
    models = [teacher("sasrec", 4, 0), teacher("decayed_pooling", 6, 1)]
    settings = TeachConfig(("a", "b"), label_weight=0.25, pairs=0.5)
    present = HISTORIES != 0
    taught = RankingTeachers(models, settings, 3, temperature=2.0).taught(HISTORIES, present, 2, 2)
    places = int(present.sum())
    targets = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])[:, None]
    said = taught.targets(0, places + 2, targets)
    expected = torch.zeros(places + 2, 6)
    for model in models:
        items, bias = model.item_vectors()
        users = torch.cat([model.user_vectors(HISTORIES)[present], model.model.nobody.expand(2, -1)])
        expected += 0.5 * torch.softmax((users @ items.T + bias) / 2.0, 1).detach()
    weight = torch.tensor([0.25] * 5 + [0.0] + [0.25] * 2)[:, None]  # the third history is made up
    expected = (1 - weight) * expected + weight * torch.nn.functional.one_hot(targets[:, 0], 6)
    torch.testing.assert_close(said, expected)
    torch.testing.assert_close(said.sum(1), torch.ones(places + 2))


def test_windows_are_made_up_in_their_share() -> None:
    settings = TeachConfig(("a",), pairs=0.5)
    teachers = RankingTeachers([teacher("sasrec", 4, 0)], settings, 3)
    windows = torch.arange(1, 17).view(4, 4) % 6 + 1
    extended, lengths = teachers.extended(windows, torch.full((4,), 4), torch.Generator().manual_seed(0))
    assert extended.shape == (6, 4)
    assert torch.equal(extended[:4], windows)
    assert len(lengths) == 6
    none = RankingTeachers([teacher("sasrec", 4, 0)], TeachConfig(("a",), pairs=0.0), 3)
    assert torch.equal(none.extended(windows, lengths[:4], torch.Generator())[0], windows)


def test_a_teacher_of_shorter_histories_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"teacher a: reads the last 2 items, but its pupil the last 3; set"
    ):
        RankingTeachers([teacher("sasrec", 4, 0, last=2)], TeachConfig(("a",)), 3)
