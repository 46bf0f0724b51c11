"""The texts that the package can show, read from its source."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import prefect_docker_attest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

PACKAGE = Path(prefect_docker_attest.__file__).parent
PLACEHOLDER = "..."
# Of `str.format` and of logging.
_PLACEHOLDERS = re.compile(r"\{\w*\}|%s")


def messages() -> set[str]:
    """All strings of the package but docstrings, with `PLACEHOLDER` for values."""
    return {text for file in PACKAGE.rglob("*.py") for text in _strings(file)}


def _strings(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    # A sentence on its own is a docstring.
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    module = _module(file)
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(_part(part, module) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _PLACEHOLDERS.sub(PLACEHOLDER, node.value)


def _part(part: ast.expr, module: ModuleType | None) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    # The value of a constant of the module is known.
    value = getattr(module, part.value.id, None) if isinstance(part.value, ast.Name) else None
    return value if isinstance(value, str) else PLACEHOLDER


def _module(file: Path) -> ModuleType | None:
    name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    # Running `__main__` runs the command.
    return None if name.endswith(".__main__") else importlib.import_module(name)
