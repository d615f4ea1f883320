"""The figures of the README and of docs/ are those of the files in docs/benchmarks/.

A table under `<!-- figures: FILE: PROGRAM, PROGRAM; FILE: PROGRAM -->` has one program a row, in that order. Each
of its columns has a rule below that computes the cell's numbers from the file; they must be equal when rounded to the
digits that the page shows.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COUNTS = ("1", "100", "1000")
LABELS = (
    "",
    "what ships",
    "program",
    "model",
    "budget",
    "thresholds",
    "regime",
    "what it is",
    "sizes from, budget",
)
"""Columns that name the row; a size in kB in them is the program's."""

Programs = dict[str, Any]
Rule = Callable[[Programs, str], list[float]]


@cache
def measured(file: str) -> dict[str, Any]:
    """What one file of docs/benchmarks/ holds."""
    content: dict[str, Any] = json.loads((ROOT / "docs" / "benchmarks" / f"{file}.json").read_text())
    return content


def mean(programs: Programs, name: str, key: str) -> float:
    return float(programs[name][key]["mean"])


def both(programs: Programs, name: str, key: str) -> list[float]:
    """Mean and, of several runs, standard deviation."""
    return [float(programs[name][key][part]) for part in ("mean", "std") if part in programs[name][key]]


def smaller(programs: Programs, name: str, *others: str) -> list[float]:
    """How many times smaller than other programs of the same runs."""
    return [mean(programs, other, "bytes") / mean(programs, name, "bytes") for other in others]


def spread(programs: Programs, name: str) -> list[float]:
    """Standard deviation of the times over the runs, in percent of their mean."""
    times = [both(programs, name, f"p50_us_{count}") for count in COUNTS]
    return [100 * each[1] / each[0] for each in times if len(each) > 1]


def against_careful(programs: Programs, name: str, which: str, value: str) -> list[float]:
    """One of the two numbers of a bundle; none where no careful program is as good, or as small."""
    comparison = programs[name].get("careful", {}).get(which)
    return [] if comparison is None else [comparison[value]]


def below(programs: Programs, name: str) -> list[float]:
    """Percent of a budget in bytes that its bundle leaves."""
    budget = float(name.removesuffix("B").replace("K", "e3"))
    return [100 * (1 - mean(programs, name, "bytes") / budget)]


SUMMARIES: dict[str, Rule] = {
    "bytes": lambda p, n: [mean(p, n, "bytes") / 1e3],
    "smaller": lambda p, n: smaller(p, n, "fp32"),
    "test AUC": lambda p, n: both(p, n, "test_auc"),
    "validation AUC": lambda p, n: both(p, n, "valid_auc"),
    "against dense fp32": lambda p, n: [mean(p, n, "over_dense")],
    "p50 µs at 1 / 100 / 1000": lambda p, n: [mean(p, n, f"p50_us_{c}") for c in COUNTS],
    "spread": spread,
    "over int8": lambda p, n: [mean(p, n, f"over_int8_{c}") for c in COUNTS],
    "over fp32": lambda p, n: [mean(p, n, f"p50_us_{c}") / mean(p, "fp32", f"p50_us_{c}") for c in COUNTS],
    "memory": lambda p, n: [mean(p, n, "added_rss_bytes") / 1e6],
    "dense fp32": lambda p, n: [mean(p, "fp32", "bytes") / 1e3],
    "its test AUC": lambda p, n: both(p, "fp32", "test_auc"),
    "smaller than fp32 / int8 / int2": lambda p, n: smaller(p, n, "fp32", "int8", "int2"),
    "memory over int8": lambda p, n: [mean(p, n, "added_rss_bytes") / mean(p, "int8", "added_rss_bytes")],
    "bundle": lambda p, n: [mean(p, n, "bytes") / 1e3],
    "bundle, bytes": lambda p, n: [mean(p, n, "bytes")],
    "smaller than the smallest careful as good": lambda p, n: against_careful(
        p, n, "as_good", "times_smaller"
    ),
    "over the best careful as small": lambda p, n: against_careful(p, n, "as_small", "auc_gain"),
    "below it": below,
}
"""What `benchmarks/summarize.py --json` wrote: several runs."""


def against(name: str, key: str, value: str) -> list[float]:
    """How one of our programs stands against a peer, where one can be compared."""
    result = measured("peers")["against"].get(name, {}).get(key)
    return [result[value]] if result else []


PEERS: dict[str, Rule] = {
    "bytes": lambda p, n: [p[n]["bytes"]],
    "deflated": lambda p, n: [p[n]["deflated_bytes"]],
    "test AUC": lambda p, n: [p[n]["test_auc"]],
    "p50 µs at 1 / 100 / 1000": lambda p, n: [p[n]["latency_us"][c]["p50"] for c in COUNTS],
    "memory added": lambda p, n: [p[n]["memory"]["added_rss_bytes"] / 1e6],
    "at its bytes, ours": lambda p, n: against(n, "at_bytes", "auc_gain"),
    "at its AUC, ours": lambda p, n: against(n, "at_auc", "times_smaller"),
}
"""What `export/peers.py` wrote: one run."""


RATIOS: dict[str, Callable[[list[float], list[float]], list[float]]] = {
    "test AUC": lambda a, b: [a[0] - b[0]],
    "spread": lambda a, b: [],
}
"""Columns that a row of two programs, `fp32 / 39700B`, does not divide."""


def divided(a: list[float], b: list[float]) -> list[float]:
    return [left / right for left, right in zip(a, b, strict=True)]


def values_of(file: str, name: str, header: str) -> list[float]:
    """The numbers that a column has for a program, or for one program over another."""
    programs = programs_of(file)
    rule = RULES.get(file, SUMMARIES)[header]
    if " / " not in name:
        return rule(programs, name)
    left, right = (rule(programs, each) for each in name.split(" / "))
    return RATIOS.get(header, divided)(left, right)


def of_table(key: str, size: str) -> Rule:
    """A figure of a training step on tables of a size."""
    return lambda p, n: [p[n]["tables"][size][key]]


STEPS: dict[str, Rule] = {
    "dense, 100k": of_table("dense_ms", "100k"),
    "PEP, 100k": of_table("pep_ms", "100k"),
    "dense, 10M": of_table("dense_ms", "10M"),
    "PEP, 10M": of_table("pep_ms", "10M"),
    "PEP / dense, 100k": of_table("pep_over_dense", "100k"),
    "PEP / dense, 10M": of_table("pep_over_dense", "10M"),
    "PEP, 10M / 100k": lambda p, n: [p[n]["ratio_10M_over_100k"]],
}
"""What `benchmarks/step_time.py --tables` wrote: thresholds and regimes, not programs."""

ENCODING: dict[str, Rule] = {
    "keys": lambda p, n: [p[n]["keys"]],
    "vocabulary, bytes": lambda p, n: [p[n]["vocabulary_bytes"]],
    "reading it, ms": lambda p, n: [p[n]["read_vocabulary_ms"]],
    "opening the bundle, ms": lambda p, n: [p[n]["open_bundle_ms"]],
    "encoding, ms": lambda p, n: [p[n]["encode_ms"]],
    "memory, kB": lambda p, n: [p[n]["without_program_bytes"] / 1000],
    "with the program, kB": lambda p, n: [p[n]["memory_bytes"] / 1000],
}
"""What `benchmarks/encode.py` wrote: one bundle."""

COUNTED: dict[str, Rule] = {
    "M arm64 instructions at 100 / 1000": lambda p, n: [p[n][c] / 1e6 for c in COUNTS[1:]]
}
"""What `android_demo/tools/arm64.py count` wrote: rankings of so many candidates."""

Seeds = list[dict[str, float]]


def over_seeds(points: Seeds, key: str) -> list[float]:
    """Mean and, of several seeds, standard deviation; nothing where no seed has it."""
    values = [float(point[key]) for point in points if key in point]
    return (
        [statistics.mean(values), *([statistics.stdev(values)] if len(values) > 1 else [])] if values else []
    )


NEXT_ITEM: dict[str, Rule] = {
    "bytes": lambda p, n: over_seeds(p[n], "bytes")[:1],
    "kB": lambda p, n: [each / 1000 for each in over_seeds(p[n], "bytes")[:1]],
    "validation NDCG@10": lambda p, n: over_seeds(p[n], "valid_ndcg@10"),
    "test NDCG@10": lambda p, n: over_seeds(p[n], "test_ndcg@10"),
    "smaller than the smallest careful as good": lambda p, n: over_seeds(p[n], "times_smaller"),
    "over the best careful as small": lambda p, n: over_seeds(p[n], "better_by"),
    "HR@10": lambda p, n: over_seeds(p[n], "hr@10"),
    "NDCG@10": lambda p, n: over_seeds(p[n], "ndcg@10"),
    "MRR": lambda p, n: over_seeds(p[n], "mrr"),
}
"""What `benchmarks/next_item_compact.py` and `benchmarks/peers_next_item.py` wrote."""


def next_item_points(content: dict[str, Any]) -> dict[str, Seeds]:
    """The models of a file of the next item by name, an entry for each seed."""
    if "models" in content:
        return {name.replace(", ", " "): [each["test"]["all"]] for name, each in content["models"].items()}
    points: dict[str, Seeds] = {}
    for run in content["runs"]:
        beside = {entry["name"]: entry for entry in run["beside"]}
        for point in (*run["ours"], *run["careful"]):
            points.setdefault(point["name"], []).append({**beside.get(point["name"], {}), **point})
    for entry in content["dense"]:
        points.setdefault(entry["name"].replace(", ", " "), []).append(entry)
    return points


TIMED: dict[str, Rule] = {
    "`recommend`, p50 µs": lambda p, n: [p[n]["p50_us"]["median"]],
    "over int8": lambda p, n: [p[n]["over_first"]["median"]],
    "`items`, once, µs": lambda p, n: [p[n]["items_us"]["median"]],
    "M arm64 instructions": lambda p, n: [measured("arm64_next_item")["instructions"][n]["recommend"] / 1e6],
}
"""What `benchmarks/next_item_time.py` wrote, and `android_demo/tools/arm64.py count` of the same bundles."""

NEW_ITEMS: dict[str, Rule] = {
    "new films: HR@10": lambda p, n: [p[n]["new items"]["hr@10"]],
    "NDCG@10": lambda p, n: [p[n]["new items"]["ndcg@10"]],
    "MRR": lambda p, n: [p[n]["new items"]["mrr"]],
    "without attributes: MRR": lambda p, n: [p[n]["new items without attributes"]["mrr"]],
    "known films: NDCG@10": lambda p, n: [p[n]["known items"]["ndcg@10"]],
}
"""What `benchmarks/new_items.py` wrote: models with items held out."""

HISTORIES: dict[str, Rule] = {
    "epochs": lambda p, n: [p[n]["epochs"]],
    "validation AUC": lambda p, n: [p[n]["valid_auc"]],
    "test AUC": lambda p, n: [p[n]["test_auc"]],
}
"""What `benchmarks/histories.py` wrote: one run of each model."""

RULES = {
    "movielens_1m_histories": HISTORIES,
    "movielens_1m_new_items": NEW_ITEMS,
    "movielens_1m_next_item_time": TIMED,
    "movielens_1m_next_item_compact_seeds": NEXT_ITEM,
    "movielens_1m_next_item_gaps": NEXT_ITEM,
    "movielens_1m_next_item": NEXT_ITEM,
    "movielens_1m_next_item_compact": NEXT_ITEM,
    "peers": PEERS,
    "step_time": STEPS,
    "encode": ENCODING,
    "arm64_headline": COUNTED,
    "arm64_careful": COUNTED,
}


def programs_of(file: str) -> Programs:
    """The entries of a file by the names that a comment gives them."""
    if file == "step_time":
        return {f"{each['granularity']} {each['regime']}": each for each in measured(file)["measured"]}
    if file == "encode":
        return {f"{measured(file)['rows']} rows": measured(file)}
    if RULES.get(file) is COUNTED:
        return dict(measured(file)["instructions"])
    if RULES.get(file) in (HISTORIES, NEW_ITEMS):
        return {name.replace(", ", " "): each for name, each in measured(file)["models"].items()}
    if RULES.get(file) is NEXT_ITEM:
        return next_item_points(measured(file))
    if RULES.get(file) is TIMED:
        return dict(measured(file)["recommend"])
    programs: Programs = dict(measured(file)["programs"])
    careful = measured(file).get("careful")
    if careful is not None:
        programs |= careful["programs"]
        programs |= {} if careful["taught"] is None else {"taught": careful["taught"]}
    return programs


def marked(text: str) -> list[tuple[list[tuple[str, str]], list[str]]]:
    """The marked tables of a page: the file and the program of each row, and the table's lines."""
    tables = []
    for names, lines in re.findall(r"^<!-- figures: (.*?) -->\n\n((?:^\|.*\n)+)", text, re.MULTILINE):
        rows = []
        for part in names.split("; "):
            file, programs = part.split(": ")
            rows += [(file, program) for program in programs.split(", ")]
        tables.append((rows, lines.splitlines()))
    return tables


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def numbers(cell: str) -> list[str]:
    """The numbers of a cell as they are written, but for separators and the minus sign."""
    return re.findall(r"[+-]?\d+(?:\.\d+)?", cell.replace("−", "-").replace(",", ""))


def same(shown: str, value: float) -> bool:
    """Whether a value, rounded to the digits that are shown, is what is shown."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown) - value) <= 0.5 * 10**-digits * (1 + 1e-9)


def mistakes(rows: list[tuple[str, str]], lines: list[str]) -> list[str]:
    """What a marked table says otherwise than its files, a sentence each."""
    headers, body = cells(lines[0]), lines[2:]
    if len(body) != len(rows):
        return [f"{len(body)} rows, but the comment names {len(rows)} programs"]
    result = []
    for (file, name), line in zip(rows, body, strict=True):
        for header, cell in zip(headers, cells(line), strict=True):
            if header in LABELS:
                shown = [size.replace(",", "") for size in re.findall(r"([\d,.]+) kB", cell)]
                kilo = 1e3 if file == "peers" else 1
                values = [size / kilo for size in values_of(file, name, "bytes")] if shown else []
            else:
                shown, values = numbers(cell), values_of(file, name, header)
            if len(shown) != len(values) or not all(map(same, shown, values)):
                result.append(f"{file}, {name}, {header!r}: the page says {cell!r}, the file {values}")
    return result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_files(page: Path) -> None:
    tables = marked(page.read_text(encoding="utf-8"))
    assert page.read_text(encoding="utf-8").count("<!-- figures") == len(tables)
    assert [mistake for table in tables for mistake in mistakes(*table)] == []


def test_every_table_of_the_readme_is_compared() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(marked(text)) == len(re.findall(r"^\|[-:|]+\|$", text, re.MULTILINE)) > 0


MEASURED = re.compile(
    r"(?<![\w.])[+−]?\d[\d,]*(?:\.\d+)?(?=\s?(?:×|%|kB|MB|ms|µs)(?!\w))|(?<![\w.])[+−]?\d+\.\d{2,}\b"
)
"""A figure in running text: a number with a unit, or with two digits behind the point."""
VERSIONS = re.compile(r"\bPy(?:thon|Torch) \d+\.\d+")


def prose_figures(text: str) -> list[str]:
    """The figures of a page outside its tables and code."""
    prose = re.sub(r"^```.*?^```|^\|.*?$|<!--.*?-->|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return MEASURED.findall(VERSIONS.sub("", prose))


def test_figures_in_the_prose_of_the_readme_stand_in_a_table_that_is_compared() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {number for _, lines in marked(text) for line in lines for number in numbers(line)}
    assert [figure for figure in prose_figures(text) if not {*numbers(figure)} <= shown] == []


def test_a_figure_in_prose_is_seen() -> None:
    text = "Python 3.10 reads `1.5 ms`: 1.3× or 40 kB, 0.9063 and +0.0002, d = 32, 3 seeds.\n| 7 kB |\n"
    assert prose_figures(text) == ["1.3", "40", "0.9063", "+0.0002"]


@pytest.mark.parametrize("page", ["results.md", "budgets.md"])
def test_pages_of_measurements_have_marked_tables(page: str) -> None:
    assert marked((ROOT / "docs" / page).read_text(encoding="utf-8"))


def test_a_wrong_figure_is_found() -> None:
    rows = [("movielens_1m_deepfm_curve", "39700B")]
    right = ["| what ships | bytes | test AUC |", "|---|--:|--:|", "| ours | 39.4 kB | 0.9063 ± 0.00005 |"]
    assert mistakes(rows, right) == []
    for wrong in ("39.5 kB | 0.9063 ± 0.00005", "39.4 kB | 0.9064 ± 0.00005", "39.4 kB | 0.9063"):
        assert len(mistakes(rows, [*right[:2], f"| ours | {wrong} |"])) == 1
