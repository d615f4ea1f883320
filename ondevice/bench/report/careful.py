"""What our bundles are worth against the careful programs: two numbers for each, chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ondevice.bench.report.drawing import format_bytes

KEYS = ("name", "bytes", "valid_auc", "test_auc")


def against_careful(ours: Mapping[str, Any], careful: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How one bundle stands against the careful programs.

    ``as_good`` is the smallest of those whose validation AUC is at least ours, with ``times_smaller`` ours is than it;
    ``as_small`` the one of the best validation AUC of those that take at most our bytes, with ``auc_gain``, our test
    AUC less its. Either is None where there is no such program.

    Args:
        ours: ``bytes`` of the whole bundle, ``valid_auc`` and ``test_auc``.
        careful: with `KEYS`.
    """
    good = [p for p in careful if p["valid_auc"] >= ours["valid_auc"]]
    small = [p for p in careful if p["bytes"] <= ours["bytes"]]
    as_good = min(good, key=lambda p: (p["bytes"], -p["valid_auc"]), default=None)
    as_small = max(small, key=lambda p: (p["valid_auc"], -p["bytes"]), default=None)
    return {
        "as_good": as_good
        and {**{k: as_good[k] for k in KEYS}, "times_smaller": as_good["bytes"] / ours["bytes"]},
        "as_small": as_small
        and {**{k: as_small[k] for k in KEYS}, "auc_gain": ours["test_auc"] - as_small["test_auc"]},
    }


def as_ours(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What `against_careful` reads of a bundle's entry in a report."""
    return {"bytes": entry["bytes"]["bundle"], **{k: entry[k] for k in ("valid_auc", "test_auc")}}


def as_good_text(comparison: Mapping[str, Any]) -> str:
    """How many times smaller a bundle is than the smallest careful program at least as good."""
    other = comparison["as_good"]
    if other is None:
        return "no careful program is as good on validation"
    ratio = other["times_smaller"]
    size = f"{ratio:.2f}× smaller" if ratio >= 1 else f"{1 / ratio:.2f}× larger"
    return f"{size} than the smallest careful program at least as good on validation ({_described(other)})"


def as_small_text(comparison: Mapping[str, Any]) -> str:
    """How much better a bundle is than the best careful program at most as large."""
    other = comparison["as_small"]
    if other is None:
        return "no careful program is as small"
    gain = f"{other['auc_gain']:+.4f}".replace("-", "−")
    return f"test AUC {gain} over the best careful program at most as large ({_described(other)})"


def _described(program: Mapping[str, Any]) -> str:
    return f"{program['name']}, {format_bytes(program['bytes'])}, test AUC {program['test_auc']:.4f}"


def careful_lines(report: Mapping[str, Any]) -> list[str]:
    """Both numbers of every bundle, and the careful programs, as lines of text."""
    lines = ["against the careful programs (whole bundles; one dimension for all rows, the same teachers)"]
    for name, entry in report["budgets"].items():
        comparison = entry["careful"]
        lines.append(f"  {name}: {as_good_text(comparison)};")
        lines.append(f"  {'':{len(name)}}  {as_small_text(comparison)}")
    for p in report["careful"]["programs"]:
        lines.append(
            f"  {p['name']:>14} {p['bytes']:>9,} bytes  valid {p['valid_auc']:.4f}  test {p['test_auc']:.4f}"
        )
    taught = report["careful"]["taught"]
    if taught is not None:
        lines.append(
            f"  {'dense, taught':>14} {taught['bytes']:>9,} bytes  valid {taught['valid_auc']:.4f}  "
            f"test {taught['test_auc']:.4f} (fp32, the program alone)"
        )
    return lines


def careful_curves(report: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What `figures.pareto_curves` draws of a report: `curves_beside`, and the dense fp32 programs."""
    ours = [
        {"name": name, "bytes": e["bytes"]["bundle"], "test_auc": e["test_auc"]}
        for name, e in report["budgets"].items()
    ]
    fp32, taught = report["baselines"]["fp32"], report["careful"]["taught"]
    points = [{"name": "dense fp32", "bytes": fp32["pte_bytes"], "test_auc": fp32["test_auc"]}]
    if taught is not None:  # before it: of two of the same bytes the first has its name above it
        points.insert(0, {"name": "taught", "bytes": taught["bytes"], "test_auc": taught["test_auc"]})
    return curves_beside(ours, report["careful"]["programs"]), points


def curves_beside(
    ours: Sequence[Mapping[str, Any]], careful: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Our bundles as one curve, and the careful programs as one for each number of bits, which their names hold."""
    everything = [*ours, *careful]
    kinds = {p["name"]: p["name"].split("-")[1] for p in careful}
    curves = [_curve("ondevice", ours, everything)]
    for kind in sorted(set(kinds.values()), reverse=True):
        points = [p for p in careful if kinds[p["name"]] == kind]
        curves.append(_curve(f"careful {kind}", points, everything))
    return curves


def _curve(
    name: str, points: Sequence[Mapping[str, Any]], everything: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    def beaten(p: Mapping[str, Any]) -> bool:
        return any(
            q["bytes"] <= p["bytes"]
            and q["test_auc"] >= p["test_auc"]
            and (q["bytes"], q["test_auc"]) != (p["bytes"], p["test_auc"])
            for q in everything
        )

    ordered = sorted(points, key=lambda p: p["bytes"])
    return {"name": name, "points": [{**p, "dominated": beaten(p)} for p in ordered]}
