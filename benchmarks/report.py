"""Makes the tables of the results."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOOR = "by hand"
MB = 1_000_000


def _median(runs: Sequence[Mapping[str, float]], figure: str) -> float:
    return median(run[figure] for run in runs)


def ratios(runs: Mapping[str, Sequence[Mapping[str, float]]], way: str) -> list[float]:
    """Return the ratio of a way's time to the time of the command typed by hand, for each turn."""
    return [run["seconds"] / floor["seconds"] for run, floor in zip(runs.get(way, []), runs[FLOOR], strict=False)]


def table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown: medians, and for ratios also the least and the greatest value."""
    lines = [f"Measured on {results['machine']}; {results['versions']}.", ""]
    for store, works in results["builds"].items():
        lines += [
            f"### {store} image store",
            "",
            "| work | turns | by hand, s | this package | more, ms | classic builder | build_backend "
            "| CPU, s | memory, MB | disk, MB |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(name, runs) for name, runs in works.items()]
        lines += [""]
    if results["start_up"]:
        lines += [
            "### Start-up",
            "",
            "| program | without, ms | with, ms | median of the differences |",
            "|---|---|---|---|",
        ]
        for program, taken in results["start_up"].items():
            differences = [a - b for a, b in zip(taken["with"], taken["without"], strict=True)]
            row = (median(taken["without"]), median(taken["with"]), median(differences))
            lines.append(f"| `{program}` | {row[0]:.1f} | {row[1]:.1f} | {row[2]:+.2f} |")
        lines += [""]
    lines += [
        "The time of the command typed by hand is in seconds. The times of the other ways are the median ratio to it",
        "in the same turn (least - most). The median difference is shown for this package.",
        "CPU time, peak of memory and temporary disk space are those of the process that calls Prefect: this package",
        "/ classic builder.",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    cells = [name, str(len(runs[FLOOR])), f"{_median(runs[FLOOR], 'seconds'):.2f}"]
    for way in ("this package", "classic", "build_backend"):
        found = ratios(runs, way)
        cells.append(f"{median(found):.2f} ({min(found):.2f} - {max(found):.2f})" if found else "fails")
        if way == "this package":
            pairs = zip(runs.get(way, []), runs[FLOOR], strict=False)
            more = [run["seconds"] - floor["seconds"] for run, floor in pairs]
            cells.append(f"{median(more) * 1000:+.0f}" if more else "")
    for figure, unit, digits in (("cpu", 1, 2), ("memory", MB, 0), ("space", MB, 0)):
        both = [_median(runs[way], figure) / unit if way in runs else None for way in ("this package", "classic")]
        cells.append(" / ".join("-" if value is None else f"{value:.{digits}f}" for value in both))
    return f"| {' | '.join(cells)} |"
