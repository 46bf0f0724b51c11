"""docs/options.md matches the tables of options."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "scripts/options_page.py"))
    page = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    assert page == script["text"](), "Write the page again: scripts/tox -e options"
