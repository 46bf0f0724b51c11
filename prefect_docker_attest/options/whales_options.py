"""Translates options of python-on-whales' ``buildx.build`` into buildx options. Pure.

Prefect's ``build_backend="buildx"`` calls that function.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import table, values
from prefect_docker_attest.options.table import BuildxOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

SPECIAL = {
    "context_path": "The folder of the build context.",
    "cache": "`False`: build every step again (`--no-cache`).",
    "output": "`type=docker` loads the image into the engine. `type=registry` or `type=image,push=true` pushes it. "
    "`oci-mediatypes` selects its media types. Other values are refused, because Prefect cannot use their result.",
    "metadata_file": "A file to which buildx's metadata about the image is written.",
    "progress": "`False`: `stream_progress_to` gets no progress. Progress always consists of plain lines.",
}
"""Options that are not a row of the table, with their meaning."""

IGNORED = {
    "stream_logs": "Progress always goes to Prefect's `stream_progress_to`, line by line.",
    "load": "The image is always loaded into the engine, unless it is pushed.",
}
"""Options that have no effect, with the reason."""

_ROWS = {row.python_on_whales: row for row in table.ROWS if row.python_on_whales}


@dataclass(frozen=True)
class PythonOnWhalesBuild:
    """The checked options of a call of python-on-whales' ``buildx.build``.

    Attributes:
        options: options for buildx
        metadata_file: path to write buildx's metadata to; `None` if the caller does not want it
        shows_progress: whether to show the output of the build
    """

    options: BuildxOptions
    metadata_file: str | None
    shows_progress: bool


def read(python_on_whales_options: Mapping[str, Any]) -> PythonOnWhalesBuild:
    """Check every option of a python-on-whales build, and translate it into buildx options.

    Args:
        python_on_whales_options: parameters of python-on-whales' ``buildx.build`` by name, including ``context_path``

    Raises:
        TypeError: python-on-whales does not have the option
        OptionError: a value is wrong, or Prefect cannot use the requested output
    """
    unknown = sorted(python_on_whales_options.keys() - _ROWS.keys() - SPECIAL.keys() - IGNORED.keys())
    if unknown:
        raise TypeError(f"build() got an unexpected keyword argument {unknown[0]!r}")
    given = {name: value for name, value in python_on_whales_options.items() if value is not None}
    converted = {row.name: row.convert(name, given[name]) for name, row in _ROWS.items() if name in given}
    output = dict(given.get("output") or {})
    media_types = _media_types(output.pop("oci-mediatypes", None))
    options = BuildxOptions(
        **{**converted, "push": _pushes(output, push=converted.get("push", False))},
        media_types=media_types,
        context=values.absolute_path("context_path", given["context_path"]),
        no_cache=not values.switch("cache", python_on_whales_options.get("cache", True)),
    )
    metadata_file = given.get("metadata_file")
    return PythonOnWhalesBuild(
        options,
        None if metadata_file is None else os.fspath(metadata_file),
        shows_progress=given.get("progress") is not False,
    )


def _media_types(oci: object) -> str | None:
    if oci is None:
        return None
    return "oci" if values.switch("output", oci) else "docker"


def _pushes(output: Mapping[str, str], *, push: bool) -> bool:
    if not output or output == {"type": "docker"}:
        return push
    if output in ({"type": "registry"}, {"type": "image", "push": "true"}):
        return True
    raise OptionError(
        "output",
        "is not supported: Prefect needs the image in the engine or in a registry",
        output,
        tip="Omit it, or use push=True to push the image.",
    )
