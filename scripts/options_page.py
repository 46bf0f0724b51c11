"""Writes docs/options.md from the tables of options in the source tree: `scripts/tox -e options`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect_docker_attest.options import docker_py_options as docker_py
from prefect_docker_attest.options import whales_options as python_on_whales
from prefect_docker_attest.options.table import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGE = Path(__file__).resolve().parents[1] / "docs/options.md"

INTRODUCTION = """# Options of a build

This page lists every option that a build accepts, and the flag of `docker buildx build` that it becomes.

`DockerImage(...)`, `build_image(...)` and the step `build_docker_image` of `prefect.yaml` take the options of docker-py
and the buildx-only options. With `build_backend="buildx"` they take the options of python-on-whales. The second column
of the first two tables has their names. It is empty if python-on-whales has no such option.

An image with a buildx-only option is built by buildx, even with the setting off. On the containerd image store, or if
the builder pushes the image, buildx then adds attestations, unless the image has `provenance=False`. With the setting
on, `provenance=True`, `sbom=True` and `attest` have no effect, and a warning names them.

With Podman's own builder, docker-py's options work as without this package, and most buildx-only options are refused
([settings.md](settings.md#podman)).

Two values of docker-py's own options count as buildx-only too: entries of `cache_from` such as
`type=registry,ref=NAME`, and several platforms in `platform`.
"""


def text() -> str:
    """Return the whole page."""
    sections = {
        "Options of docker-py": _rows(row for row in ROWS if row.docker_py),
        "Buildx-only options": _rows(row for row in ROWS if not row.docker_py),
        "Other options of docker-py": _sentences(docker_py.SPECIAL),
        "Options of docker-py that have no effect": _sentences(docker_py.IGNORED),
        "Options that are refused": _sentences(
            {name: f"{reason}. {tip}" for name, (reason, tip) in docker_py.REFUSED.items()}
        ),
        'Other options with `build_backend="buildx"`': _sentences(python_on_whales.SPECIAL),
        'Options that have no effect with `build_backend="buildx"`': _sentences(python_on_whales.IGNORED),
    }
    return "\n".join([INTRODUCTION, *(f"## {title}\n\n{table}" for title, table in sections.items())])


def _rows(rows: Iterable[Row]) -> str:
    lines = (
        f"| `{row.docker_py or row.name}` | {_code(row.python_on_whales)} | `{row.flag}` | {row.meaning}{_since(row)} |"
        for row in rows
    )
    head = '| option | with `build_backend="buildx"` | flag | meaning |\n|---|---|---|---|\n'
    return head + "\n".join(lines) + "\n"


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def _since(row: Row) -> str:
    return f" Needs buildx {'.'.join(map(str, row.since))}." if row.since else ""


def _sentences(options: Mapping[str, str]) -> str:
    lines = (f"| `{name}` | {sentence.removesuffix('.')}. |" for name, sentence in options.items())
    return "| option | |\n|---|---|\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
