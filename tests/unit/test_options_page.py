"""docs/options.md matches the tables of options."""

from __future__ import annotations

from support import options_page


def test_the_page_is_up_to_date() -> None:
    page = options_page.PAGE.read_text(encoding="utf-8")
    assert page == options_page.text(), "Write the page again: .tox/tests/bin/python tests/support/options_page.py"
