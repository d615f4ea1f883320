"""report.json and report.html from made-up figures."""

from __future__ import annotations

import importlib.metadata
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ondevice.bench.report.careful import careful_lines
from ondevice.bench.report.drawing import COLORS, format_bytes, format_us, new_figure, to_svg
from ondevice.bench.report.figures import FIGURES, PART_COLORS, PART_NAMES, size_classes, spread
from ondevice.bench.report.page import headline, render
from ondevice.bench.report.report import bundle_report, choose_headline, environment, text_table, write
from ondevice.program.pte import PTE_PARTS
from ondevice.version import __version__

from .. import sample


class Page(HTMLParser):
    """Tags that may not stay open, and every attribute that could fetch something."""

    VOID = ("meta", "link", "img", "br", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster") and not (
                value or ""
            ).startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.fetched.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text() -> str:
    return render(sample.careful_report())


def test_the_page_fetches_nothing(text: str) -> None:
    page = Page(text)
    assert page.fetched == []
    assert page.open == []
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_page_holds_every_figure_once(text: str) -> None:
    assert set(FIGURES) == {"careful", "pareto", "quality", "bytes", "sizes", "latency", "learning"}
    for name, title in FIGURES.items():
        assert text.count(f'<figure id="{name}">') == 1
        assert f'aria-label="{title}"' in text
    assert text.count("<svg") == len(FIGURES)


def test_ids_are_unique(text: str) -> None:
    ids = Page(text).ids
    assert len(ids) == len(set(ids))


def test_a_figure_keeps_its_style_whatever_is_set_around_it() -> None:
    import matplotlib.pyplot as plt

    with plt.style.context("ggplot"):  # white lines across a grey ground
        figure, (axes,) = new_figure(1.0)
        axes.plot([0, 1], [0, 1], color=COLORS["ours"])
        drawn = to_svg(figure, "styled")
    assert "var(--ours)" in drawn
    assert re.findall(r"#[0-9a-f]{6}\b", drawn) == []


def test_figures_take_their_colours_from_the_page(text: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--ours)" in drawings
    assert re.findall(r"#[0-9a-f]{6}\b", drawings) == []
    css = re.search(r"<style>\n:root(.*?)</style>", text, flags=re.DOTALL)[1]  # type: ignore[index]
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    for name, value in COLORS.items():
        assert f"--{name}: {value}" in light, "the style sheet's light colours are those that are drawn with"
        assert f"--{name}: " in dark


def test_colours_can_be_told_apart() -> None:
    assert len(set(COLORS.values())) == len(COLORS)
    assert set(PART_COLORS) == set(PART_NAMES) == {*PTE_PARTS, "vocabulary", "manifest"}


def test_the_headline_says_the_ratios() -> None:
    said = re.sub(r"<.*?>", "", headline(sample.report()))
    assert said == (
        "75.4 kB instead of 1.96 MB: the bundle is 26.0× smaller than the dense fp32 program, 7.9× than int8, "
        "5.0× than int4 and 3.5× than int2, at a test AUC of 0.9007 (−0.0014)."
    )


def test_the_headline_leads_with_the_careful_opponent_where_there_is_one() -> None:
    said = re.sub(r"<.*?>", "", headline(sample.careful_report()))
    assert said == (
        "75.4 kB at a test AUC of 0.9007: 2.00× smaller than the smallest careful program at least as good on "
        "validation (d8-int8, 151 kB, test AUC 0.9012), test AUC +0.0040 over the best careful program at most as "
        "large (d4-int4, 70.0 kB, test AUC 0.8967)."
    )


def test_careful_programs_stand_in_the_page_and_in_the_lines(text: str) -> None:
    for cell in ("2.00× (d8-int8)", "+0.0040 (d4-int4)", "none", "151 kB", "0.9070"):
        assert f"<td>{cell}</td>" in text
    lines = careful_lines(sample.careful_report())
    assert any(line.endswith("no careful program is as good on validation;") for line in lines)
    assert any(line.endswith("no careful program is as small") for line in lines)
    assert any("dense, taught" in line and "0.9040" in line for line in lines)
    assert "The careful opponent" not in render(sample.report())


def test_tables_hold_the_figures(text: str) -> None:
    for cell in ("1.96 MB", "0.9007", "0.3193", "143 µs", "6.60 MB", "41.3 dB", "1,736,960", "14,400"):
        assert f"<td>{cell}</td>" in text


def test_keys_and_the_cost_of_an_export_are_shown(text: str) -> None:
    for cell in ("10,900", "1.00", "14.2 s", "61.0 MB", "35.12×", "2.2 ms"):
        assert f"<td>{cell}</td>" in text
    report = sample.report()
    for entry in report["budgets"].values():  # an older bundle says nothing of its export
        del entry["export"]
    assert "35.12×" not in render(report)
    for entry in report["budgets"].values():
        del entry["keys"]
    assert "Keys and export" not in render(report)


def test_names_cannot_break_the_page() -> None:
    report = sample.report()
    report["run"]["name"] = "<script>alert(1)</script>"
    report["baselines_left_out"] = {"int2": "a < b"}
    text = render(report)
    assert "<script" not in text
    assert "a &lt; b" in text


def test_a_report_without_search_latency_ratio_or_second_thread_renders() -> None:
    report = sample.report()
    del report["history"]["search"], report["pareto"]
    report["settings"]["threads"] = ["1"]
    del report["baselines"]["int8"]
    for entry in (*report["baselines"].values(), *report["budgets"].values()):
        del entry["latency"]["2"]
        for methods in entry["latency"].values():
            for groups in methods.values():
                for measured in groups.values():
                    del measured["over_reference"]
    report["budgets"]["20000"]["parity"] = {}
    Page(render(report))


def test_files_are_written_beside_bundles_and_in_the_run(tmp_path: Path) -> None:
    report = sample.careful_report()
    bundles = {label: tmp_path / "bundles" / label for label in report["budgets"]}
    written = write(report, tmp_path, bundles)
    assert written[-1] == tmp_path / "report.html"
    assert {str(p.relative_to(tmp_path)) for p in written} == {
        *(f"bundles/{label}/report.json" for label in bundles),
        *(f"figures/{name}.svg" for name in FIGURES),
        "report.json",
        "report.html",
        "pareto.json",
        "pareto.png",
    }
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "pareto.json").read_text()) == report["pareto"]
    assert all(path.stat().st_size > 500 for path in written)
    standalone = (tmp_path / "figures" / "bytes.svg").read_text()
    assert "var(--" not in standalone
    assert json.loads((tmp_path / "report.json").read_text())["headline"] == "20000"


def test_report_json_has_the_keys_that_readers_rely_on() -> None:
    result = bundle_report(sample.report(), "20000")
    assert {"pte", "vocabulary", "manifest", "bundle", "deflated_bundle"} <= set(result["bytes"])
    assert set(result["baselines"]) == {"fp32", "int8", "int4", "int2"}
    for baseline in result["baselines"].values():
        assert {"pte_bytes", "test_auc", "p50_us"} <= set(baseline)
        assert set(baseline["p50_us"]) == {"1", "100", "1000"}
        assert all(isinstance(value, float) for value in baseline["p50_us"].values())
    assert set(result["parity"]) >= {
        "eager_vs_packed",
        "packed_vs_int8_sqnr_db",
        "int8_vs_pte_max_abs",
        "test_auc_eager",
        "test_auc_pte",
    }
    assert set(result["latency_us"]) == {"1", "100", "1000"}
    assert all({"p50", "p95"} <= set(measured) for measured in result["latency_us"].values())
    assert isinstance(result["peak_rss_bytes"], int)
    assert isinstance(result["load_ms"], float)
    assert 0 < result["delegated_fraction"] <= 1
    assert sum(result["parts"].values()) == result["bytes"]["bundle"]
    json.dumps(result)


def test_the_headline_bundle_is_chosen_on_validation() -> None:
    def entry(valid_auc: float, size: int) -> dict:
        return {"valid_auc": valid_auc, "bytes": {"bundle": size}, "test_auc": 1 - valid_auc}

    budgets = {"a": entry(0.905, 90), "b": entry(0.9021, 50), "c": entry(0.899, 30)}
    assert choose_headline(0.905, budgets) == "b"
    assert choose_headline(0.920, budgets) == "a"  # none close: the best
    assert choose_headline(0.900, budgets) == "c"


def test_the_printed_table_is_aligned() -> None:
    lines = text_table(sample.report()).splitlines()
    assert len(lines) == 8
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[:3] == ["program", "bytes", "test"]
    assert "20000 *" in text_table(sample.report())


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (999.6, "1.00 kB"),
        (67_400, "67.4 kB"),
        (1_955_844, "1.96 MB"),
    ],
)
def test_bytes_have_three_digits(count: float, expected: str) -> None:
    assert format_bytes(count) == expected


@pytest.mark.parametrize(("value", "expected"), [(9.26, "9.3 µs"), (143.2, "143 µs"), (1226, "1.23 ms")])
def test_times_have_their_unit(value: float, expected: str) -> None:
    assert format_us(value) == expected


def test_sizes_are_grouped_only_when_many() -> None:
    assert size_classes([0, 2, 2, 8]) == [(0, 0), (2, 2), (8, 8)]
    assert size_classes(list(range(33))) == [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32)]
    assert size_classes([1, 2, 3, 4, 5, 6, 30]) == [(1, 1), (2, 2), (3, 4), (5, 8), (17, 32)]


def test_labels_are_spread_without_changing_their_order() -> None:
    moved = spread([0.5, 0.51, 0.1, 0.505], 0.05)
    assert moved[2] == 0.1
    assert moved[0] < moved[3] < moved[1]
    assert min(moved[3] - moved[0], moved[1] - moved[3]) > 0.0499


def test_the_version_is_ours_whatever_is_installed_under_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the package index, ondevice is somebody else's."""
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"{package}'s own")
    assert environment()["ondevice"] == __version__
    assert environment()["numpy"] == "numpy's own"
