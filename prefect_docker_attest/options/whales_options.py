"""Translates options of python-on-whales' ``buildx.build`` into buildx options. Pure.

Prefect's ``build_backend="buildx"`` calls that function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import table, values
from prefect_docker_attest.options.request import BuildRequest, own_defaults
from prefect_docker_attest.options.table import BuildxOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.layer_compression import Compression

SPECIAL = {
    "context_path": "The folder of the build context.",
    "cache": "`False`: build every step again (`--no-cache`).",
    "output": "`type=docker` loads the image into the engine. `type=registry` or `type=image,push=true` pushes it. "
    "`oci-mediatypes` selects its media types, `compression` and `compression-level` the compression of new layers. "
    "Other values are refused, because Prefect cannot use their result.",
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


def whales_request(whales_options: Mapping[str, Any]) -> BuildRequest:
    """Check every option of a python-on-whales build, and translate it into buildx options.

    Args:
        whales_options: parameters of python-on-whales' ``buildx.build`` by name, including ``context_path``

    Raises:
        TypeError: python-on-whales does not have the option
        OptionError: a value is wrong, or Prefect cannot use the requested output
    """
    unknown = sorted(whales_options.keys() - _ROWS.keys() - SPECIAL.keys() - IGNORED.keys())
    if unknown:
        raise TypeError(f"build() got an unexpected keyword argument {unknown[0]!r}")
    given = {name: value for name, value in whales_options.items() if value is not None}
    converted = {row.name: row.convert(name, given[name]) for name, row in _ROWS.items() if name in given}
    output = dict(given.get("output") or {})
    media_types = _media_types(output.pop("oci-mediatypes", None))
    compression = _compression(output.pop("compression", None), output.pop("compression-level", None))
    options = BuildxOptions(
        **{**converted, "push": _pushes(output, push=converted.get("push", False))},
        media_types=media_types,
        compression=compression,
        context=values.absolute_path("context_path", given["context_path"]),
        no_cache=not values.switch("cache", whales_options.get("cache", True)),
    )
    # An image itself says whether its builder pushes it.
    return BuildRequest(options, (*own_defaults(options, whales_options), "push_from_builder"))


def _media_types(oci: object) -> str | None:
    if oci is None:
        return None
    return "oci" if values.switch("output", oci) else "docker"


def _compression(method: object, level: object) -> Compression | None:
    text = values.string("output['compression']", "" if method is None else method)
    if level is None:
        return values.compression("output['compression']", text)
    if not text:
        raise OptionError("output", "has a compression-level without a compression", {"compression-level": level})
    return values.compression("output['compression']", f"{text}:{level}")


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
