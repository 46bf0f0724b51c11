"""Rules for tests of engines, because an existing engine can have other users."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# These tests use only private engines, or none.
EXCEPT = {"unit", "test_private_engines.py", "test_existing_engine.py"}
MODULES = [path for path in TESTS.rglob("*.py") if not EXCEPT & {*path.relative_to(TESTS).parts}]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_the_base_image_has_a_test_name_and_no_test_prunes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "FROM busybox" not in text, "write the name BUSYBOX of support.names"
    assert "prune" not in text, "use the fixture `forget`"
