"""Draws docs/benchmark.svg from the tables of benchmarks/results.md: `python benchmarks/picture.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RESULTS = Path(__file__).with_name("results.md")
PICTURE = Path(__file__).parent.parent / "docs/benchmark.svg"

WORKS = (
    "3 files, all cached",
    "1,000 files, one changed",
    "50,000 files, all cached",
    "50,000 files, one changed",
    "1 GB in 8 files, all cached",
    "1 GB in 8 files, one changed",
    "4 independent stages of 2 s",
    "8 builds at once, all cached",
)
# Column of the tables: label and color in the picture.
WAYS = {
    "this package": ("this package", "#1f77b4"),
    "classic builder": ("classic builder", "#d62728"),
    "build_backend": ('build_backend="buildx"', "#777777"),
}

LEAST, GREATEST = 0.05, 50.0  # of the scale, which is logarithmic
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
WIDTH, HEIGHT = 900, 480
LEFT, TOP, PANEL, GAP, ROW, OFFSET = 190, 64, 335, 20, 42, 10


@dataclass(frozen=True)
class Ratio:
    """The time of a way, as a multiple of the time of `docker buildx build` typed by hand."""

    median: float
    least: float
    greatest: float


Table = dict[str, dict[str, Ratio]]
"""The ratios of each work and way. A way that does not support a work is missing."""


def read_tables(text: str) -> dict[str, Table]:
    """Return the table of each image store in results.md."""
    tables: dict[str, Table] = {}
    for section in text.split("\n### "):
        heading, *lines = section.splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        if heading.endswith(" image store"):
            tables[heading] = {row[0]: _ratios(zip(rows[0], row, strict=True)) for row in rows[2:]}
    return tables


def _ratios(cells: Iterable[tuple[str, str]]) -> dict[str, Ratio]:
    numbers = {column: re.findall(r"[\d.]+", cell) for column, cell in cells if column in WAYS}
    return {way: Ratio(*map(float, found)) for way, found in numbers.items() if found}


def drawing(text: str) -> str:
    """Return the picture, with one panel for each image store. A dot is the median; a line shows the spread."""
    versions = text.partition("\n")[0].rpartition("; ")[2].rstrip(".")
    title = f"Building through Prefect ({versions}): less is better"
    middle = LEFT + PANEL + GAP / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12" text-anchor="middle">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        words(middle, 22, title, 'font-size="15"'),
        *(words(LEFT - 8, _height(row) + 4, work, 'text-anchor="end"') for row, work in enumerate(WORKS)),
    ]
    for number, (store, table) in enumerate(read_tables(text).items()):
        lines += _panel(LEFT + number * (PANEL + GAP), store, table)
    lines.append(words(middle, HEIGHT - 42, "time, as a multiple of `docker buildx build` typed by hand"))
    for number, (label, color) in enumerate(WAYS.values()):
        x = middle - 260 + number * 190
        lines.append(f'<circle cx="{x}" cy="{HEIGHT - 18}" r="4" fill="{color}"/>')
        lines.append(words(x + 10, HEIGHT - 14, label, 'text-anchor="start"'))
    return "\n".join([*lines, "</svg>", ""])


def _panel(left: int, store: str, table: Table) -> Iterator[str]:
    bottom = TOP + ROW * len(WORKS)
    yield words(left + PANEL / 2, TOP - 10, store, 'font-weight="bold"')
    yield f'<rect x="{left}" y="{TOP}" width="{PANEL}" height="{bottom - TOP}" fill="none" stroke="#999999"/>'
    for tick in TICKS:
        x = left + _distance(tick)
        yield line(x, TOP, x, bottom, "black" if tick == 1 else "#dddddd")
        yield words(x, bottom + 16, f"{tick:g}")
    for row, work in enumerate(WORKS):
        for number, (way, (_, color)) in enumerate(WAYS.items()):
            ratio = table.get(work, {}).get(way)
            if ratio:
                y = _height(row) + (number - 1) * OFFSET
                yield line(left + _distance(ratio.least), y, left + _distance(ratio.greatest), y, color)
                yield f'<circle cx="{left + _distance(ratio.median):.1f}" cy="{y}" r="4" fill="{color}"/>'


def _height(row: int) -> int:
    return TOP + ROW * row + ROW // 2


def _distance(ratio: float) -> float:
    return PANEL * log10(ratio / LEAST) / log10(GREATEST / LEAST)


def line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="{color}"/>'


def words(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" {attributes}>{escape(text, quote=False)}</text>'.replace(" >", ">")


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(drawing(RESULTS.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
