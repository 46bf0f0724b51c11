"""Checks the links of all pages, and the files that they name. It is part of `scripts/tox -e lint`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`((?:tests|scripts|examples|benchmarks|\.github|docs)/[\w./-]+)")


def pages() -> list[Path]:
    """Return the pages of the project."""
    return sorted(page for folder in (".", "docs", ".github") for page in (ROOT / folder).glob("*.md"))


def problems(page: Path) -> Iterator[str]:
    """Yield what is wrong in a page: links to nothing, files that do not exist."""
    text = page.read_text(encoding="utf-8")
    for link in _LINK.findall(text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if link.startswith("https://"):
            continue
        if not target.exists():
            yield f"{link}: there is no such file"
        elif anchor and anchor not in _anchors(target):
            yield f"{link}: there is no such heading"
    for name in _NAMED.findall(text):
        if not (ROOT / name).exists():
            yield f"`{name}`: there is no such file"


def unlinked() -> Iterator[str]:
    """Yield the pages of docs/ to which the README does not link."""
    links = _LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    for page in sorted(ROOT.glob("docs/*.md")):
        if f"docs/{page.name}" not in links:
            yield f"there is no link to docs/{page.name}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main() -> None:
    """Exit with the list of problems; with 0 if there are none."""
    found = [f"{page.relative_to(ROOT)}: {problem}" for page in pages() for problem in problems(page)]
    sys.exit("\n".join([*found, *(f"README.md: {problem}" for problem in unlinked())]) or 0)


if __name__ == "__main__":
    main()
