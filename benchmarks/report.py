"""Makes the table and the picture of the results."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Draw the ratios to the command typed by hand, with one panel for each image store.

    A dot is the median. A line goes from the least to the greatest value.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "benchmark"  # the same results make the same file
    colors = {"this package": "#1f77b4", "classic": "#d62728", "build_backend": "#888888"}
    labels = {"this package": "this package", "classic": "classic builder", "build_backend": 'build_backend="buildx"'}
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(1, len(results["builds"]), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (store, works) in zip(panels, results["builds"].items(), strict=True):
        names = list(works)
        for number, (way, color) in enumerate(colors.items()):
            for place, name in enumerate(names):
                values = ratios(works[name], way)
                if values:
                    height = place + (number - 1) * 0.2
                    panel.plot([min(values), max(values)], [height, height], color=color)
                    panel.plot(median(values), height, "o", color=color)
            panel.plot([], [], "o-", color=color, label=labels[way])
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "40"])
        panel.set_xticks([], minor=True)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{store} image store")
        panel.set_xlabel("time, as a multiple of `docker buildx build` typed by hand")
        panel.grid(alpha=0.3)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(colors))
    figure.suptitle(f"Building through Prefect ({results['versions']}): less is better")
    figure.savefig(path, metadata={"Date": None})
