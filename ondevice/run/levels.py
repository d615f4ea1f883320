"""The sizes of an elastic model at each budget, and between them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ondevice.config.budget import budget_label, parse_budget
from ondevice.errors import ConfigError, DamagedFile
from ondevice.files import atomic_directory
from ondevice.forms.base import Form
from ondevice.methods.base import Selection
from ondevice.methods.selection import described, named, part_of, read_selection
from ondevice.run.budgets import Budgets

Final = Callable[[list[Selection], int, int | None], list[Form]]


@dataclass(frozen=True)
class Level:
    """The sizes of one budget.

    Args:
        label: of the budget.
        target: number of values asked for.
        max_size: largest dimension of a row; None for that of the config.
        selections: what the search selected for it.
        forms: the final forms, each a part of the next larger level's.
    """

    label: str
    target: int
    max_size: int | None
    selections: list[Selection]
    forms: list[Form]


class Staircases:
    """Sizes at any number of values, each row's at most those of the largest level.

    Args:
        levels: of the budgets, the largest first.
        final: what is shipped of what was found, at a number of values and a largest dimension.
    """

    def __init__(self, levels: Sequence[Level], final: Final) -> None:
        self.levels, self.final = list(levels), final

    @classmethod
    def of_budgets(
        cls, budgets: Budgets, selections: Sequence[tuple[int | str, int, list[Selection]]]
    ) -> Staircases:
        """The levels of budgets, each under the next larger one.

        Args:
            budgets: of the run.
            selections: for each budget, where the search stopped and what it found.
        """
        made = cls([], budgets.final_forms)
        for budget, searched, forms in sorted(selections, key=lambda f: (-f[1], -parse_budget(f[0])[1])):
            made._add(budgets, budget, searched, budgets.following(forms))
        return made

    def _add(self, budgets: Budgets, budget: int | str, searched: int, selections: list[Selection]) -> None:
        """Add a level under those that are there."""
        larger = self.levels[-1].forms if self.levels else None

        def forms_at(target: int, max_size: int | None) -> list[Form]:
            return self._under(self.final(selections, target, max_size), larger)

        target, max_size = budgets.target(budget, searched, forms_at)
        label = budget_label(budget)
        self.levels.append(Level(label, target, max_size, selections, forms_at(target, max_size)))

    @staticmethod
    def _under(forms: list[Form], larger: list[Form] | None) -> list[Form]:
        return forms if larger is None else [form.within(g) for form, g in zip(forms, larger, strict=True)]

    def at(self, target: int) -> list[Form]:
        """The forms at ``target`` values, found as those of the level above.

        Raises: UserError: when nothing would be left.
        """
        above = [level for level in self.levels if level.target >= target]
        level = above[-1] if above else self.levels[0]
        if level.target <= target:
            return level.forms
        return self._under(self.final(level.selections, target, level.max_size), level.forms)

    def of_budget(self, budgets: Budgets, budget: int | str, searched: int) -> list[Form]:
        """The forms of a budget: a level's, or for one that is named after the training, those of its number of values.

        Raises: UserError: when the budget is above the largest level.
        """
        for level in self.levels:
            if level.label == budget_label(budget):
                return level.forms
        target, _ = budgets.target(budget, searched, lambda target, max_size: self.at(target))
        if target > self.levels[0].target:
            raise ConfigError(
                f"compact.budgets: {budget} is more than the elastic model was trained for ({self.levels[0].label}); "
                "name another run.output=DIR"
            )
        return self.at(target)

    def between(self) -> list[list[Form]]:
        """Forms between the largest and the smallest level: the other levels, and one between each two."""
        inner = [level.forms for level in self.levels[1:-1]]
        kept = [sum(form.num_kept() for form in level.forms) for level in self.levels]
        return inner + [self.at(round((a * b) ** 0.5)) for a, b in itertools.pairwise(kept)]


def save_staircases(folder: Path, staircases: Staircases) -> None:
    """Write the levels: ``levels.json`` and ``levels.safetensors``."""
    tensors: dict[str, Tensor] = {}
    levels: list[dict[str, Any]] = []
    for number, level in enumerate(staircases.levels):
        entry: dict[str, Any] = {"label": level.label, "target": level.target, "max_size": level.max_size}
        for name, forms in (("found", level.selections), ("forms", level.forms)):
            entry[name] = [described(form) for form in forms]
            for place, form in enumerate(forms):
                tensors |= named(form, f"{number}/{name}/{place}")
        levels.append(entry)
    with atomic_directory(folder) as building:
        (building / "levels.json").write_text(json.dumps({"levels": levels}) + "\n")
        (building / "levels.safetensors").write_bytes(save_safetensors(tensors))


def load_staircases(folder: Path, budgets: Budgets) -> Staircases:
    """Read back what `save_staircases` wrote.

    Raises: UserError: when the folder holds none.
    """
    try:
        content = json.loads((folder / "levels.json").read_text())
        tensors = load_file(folder / "levels.safetensors")
    except (OSError, ValueError) as error:
        raise DamagedFile(
            f"{folder}: holds no levels of an elastic model ({error}); train the run again"
        ) from None
    levels: list[Level] = []
    for number, level in enumerate(content["levels"]):
        selections, forms = (
            [
                read_selection(description, part_of(tensors, f"{number}/{name}/{place}"))
                for place, description in enumerate(level[name])
            ]
            for name in ("found", "forms")
        )
        levels.append(Level(level["label"], level["target"], level["max_size"], selections, forms))  # type: ignore[arg-type]
    return Staircases(levels, budgets.final_forms)
