"""Adds to the error message of a failed build what can be its cause: the builder, and the settings of this package."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.buildx.failure import TIP
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.names import variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.options.defaults import Defaults

_BUILDER = re.compile(r'#0 building with "(?P<name>[^"]+)" instance using (?P<driver>\S+) driver')

# Settings that can cause an error: the setting's name in `Defaults`, a pattern of the message, and a sentence to add to
# the end of the message's last line, or in a new line.
_SETTING_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        "platform",
        r"exec format error|no match for platform in manifest|no matching manifest for",
        " The platform {value} comes from {variable}.",
    ),
    ("media_types", r"has other media types", " The media types come from {variable}={value}."),
    ("cache_to", r"Cache export is not supported|cache exporter", "\nThe cache comes from {variable}."),
    (
        "push_from_builder",
        r"failed to push",
        "\nThe builder pushes the image itself, because {variable} is on. It must be able to reach the registry.",
    ),
)


def builder_of(line: str) -> docker_cli.Builder | None:
    """Return the builder that a line of a build's output names; `None` if it names none."""
    found = _BUILDER.match(line)
    return docker_cli.Builder(found["name"], found["driver"]) if found else None


def naming_builder(text: str, builder: docker_cli.Builder) -> str:
    """Add the builder to the message of a failed build, unless it is the engine's own."""
    if builder.is_engine or not builder.name:
        return text
    body, tip = _split_tip(text)
    tip = tip or f"{TIP}Check the builder with `docker buildx inspect {builder.name}`."
    # A message has at most three lines of this package. The first line is BuildKit's.
    separator = " " if "\n" in body and body.endswith(".") else "\n"
    return (
        f"{body}{separator}The builder {builder.name} (driver {builder.driver}) is outside this Docker Engine.\n{tip}"
    )


@contextlib.contextmanager
def naming_settings(defaults: Defaults) -> Iterator[None]:
    """Add to the message of a `BuildFailed` the settings that can be its cause.

    Args:
        defaults: the settings that the build uses
    """
    try:
        yield
    except BuildFailed as error:
        text = str(error)
        sentences = [
            sentence.format(variable=variable(name), value=getattr(defaults, name))
            for name, pattern, sentence in _SETTING_CAUSES
            if getattr(defaults, name) and re.search(pattern, text)
        ]
        if not sentences:
            raise
        body, tip = _split_tip(text)
        raise BuildFailed("\n".join(filter(None, ["".join([body, *sentences]), tip])), error.output) from error


def with_other_tip(text: str, sentence: str, tip: str) -> str:
    """Add a sentence and a tip to a message. The tip replaces the message's own tip."""
    return "\n".join([_split_tip(text)[0], sentence, f"{TIP}{tip}"])


def _split_tip(text: str) -> tuple[str, str]:
    """Split a message into its text and its last line, if that is a tip."""
    body, _, last = text.rpartition("\n")
    return (body, last) if last.startswith(TIP) else (text, "")
