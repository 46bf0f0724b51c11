"""The declared dependencies: all imported packages, and few that Prefect and docker-py do not need."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import prefect_docker_attest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(prefect_docker_attest.__file__).parent

BASES = {"prefect", "docker"}

# What else the command needs to judge images as engines do: zstd before Python 3.14, and the system's certificates.
OWN = {"backports-zstd", "truststore"}

# The package does not import pydantic-settings itself, but subclasses Prefect's classes that are based on it.
USED_THROUGH_PREFECT = {"pydantic-settings"}


def required(distribution: str) -> set[str]:
    """Return the names of a distribution's dependencies on this platform, without extras."""
    requirements = [Requirement(text) for text in requires(distribution) or ()]
    return {canonicalize_name(each.name) for each in requirements if not each.marker or each.marker.evaluate()}


def imported(module: Path) -> Iterator[str]:
    """Return the top-level names that a module imports, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_import_is_declared() -> None:
    names = {name for module in PACKAGE.rglob("*.py") for name in imported(module)}
    third_party = names - sys.stdlib_module_names - {PACKAGE.name, "backports", "compression"}
    # These modules have the names of their distributions.
    distributions = {canonicalize_name(name) for name in third_party}
    if sys.version_info < (3, 14):
        distributions.add(canonicalize_name("backports-zstd"))
    assert required("prefect-docker-attest") == distributions | USED_THROUGH_PREFECT


def test_dependencies_are_those_of_prefect_and_docker_py() -> None:
    brought = {name for base in BASES for name in required(base)}
    assert required("prefect-docker-attest") - BASES - OWN <= brought
