"""Draws docs/compression.svg from benchmarks/compression.md: `python benchmarks/compression_picture.py`."""

from __future__ import annotations

from html import escape
from pathlib import Path

from picture import line, words

TABLE = Path(__file__).with_name("compression.md")
PICTURE = Path(__file__).parent.parent / "docs/compression.svg"

WAYS = ("by hand", "this package, zstd")
# Column of the table: label and colour in the picture.
PARTS = {
    "build, s": ("build", "#1f77b4"),
    "push, s": ("push", "#ff7f0e"),
    "pull containerd, s": ("pull (containerd)", "#2ca02c"),
}
WIDTH, LEFT, TOP, ROW, BAR = 900, 230, 56, 34, 20


def read_rows(table: str) -> list[tuple[str, list[float]]]:
    """Return the rows of the ways in the picture: their titles, and the seconds of each part."""
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("|")]
    columns = [cells[0].index(part) for part in PARTS]
    wanted = [row for row in cells[2:] if row[0].endswith(WAYS)]
    return [(row[0], [float(row[column].split()[0]) for column in columns]) for row in wanted]


def drawing(table: str) -> str:
    """Return the picture: one bar for each row, as a multiple of the bar by hand above it."""
    rows = read_rows(table)
    room = WIDTH - LEFT - 90
    bottom = TOP + ROW * len(rows)
    title = "A changed layer of Python packages, containerd store: less is better"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 60}" role="img" '
        'font-family="sans-serif" font-size="12" text-anchor="middle">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        words(WIDTH / 2, 24, title, 'font-size="15"'),
    ]
    whole = 1.0
    for number, (name, seconds) in enumerate(rows):
        y, x = TOP + ROW * number, float(LEFT)
        if name.endswith(WAYS[0]):
            whole = sum(seconds)
        lines.append(words(LEFT - 8, y + BAR - 5, name, 'text-anchor="end"'))
        for part, (_, color) in zip(seconds, PARTS.values(), strict=True):
            length = room * part / whole
            lines.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{color}"/>')
            x += length
        lines.append(words(x + 6, y + BAR - 5, f"{sum(seconds):.1f} s", 'text-anchor="start"'))
    lines.append(line(LEFT, TOP - 6, LEFT, bottom - 8, "black"))
    for number, (label, color) in enumerate(PARTS.values()):
        x = LEFT + 190 * number
        lines.append(f'<rect x="{x}" y="{bottom + 14}" width="12" height="12" fill="{color}"/>')
        lines.append(words(x + 18, bottom + 24, label, 'text-anchor="start"'))
    lines.append(words(WIDTH / 2, bottom + 48, "Each bar by hand has the same length; the figures are medians."))
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    PICTURE.write_text(drawing(TABLE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
