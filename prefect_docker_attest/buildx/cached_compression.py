"""Remembers that builds of this user have used another compression than gzip.

A builder keeps a layer in its cache with the compression of the build that exported it first, and later builds get the
layer with that compression. So after a build with zstd, a build that asks for nothing has layers with zstd, which older
builders give a media type that engines refuse. No builder shows the compression of its cache. So a file beside the
docker CLI's configuration remembers, because that configuration names the engines and the builders.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_docker_attest.names import logger, variable
from prefect_docker_attest.options.cache_entries import entry_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prefect_docker_attest.options.table import BuildxOptions

_TEXT = (
    "Builds with the compression {} have run here. So builds without one convert cached layers to gzip. This file can "
    "be deleted after `docker buildx prune --all`.\n"
)


def can_differ() -> bool:
    """Whether the cache of a builder can have layers that are not compressed with gzip."""
    return os.path.exists(_file())  # unlike `Path.exists`, it raises nothing


def remember(options: BuildxOptions) -> None:
    """Remember that a build uses another compression than gzip, for its image or for a cache that it writes.

    If that is not possible, log a warning.
    """
    methods = [options.compression.method if options.compression else "gzip", *_of_caches(options.cache_to)]
    method, file = next((method for method in methods if method != "gzip"), ""), _file()
    if not method or can_differ():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_TEXT.format(method), encoding="utf-8")
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s), so builds after this one do not know that the builder's cache has layers with "
            "the compression %s. To stop using it, set %s=gzip instead of unsetting it.",
            file,
            error.strerror,
            method,
            variable("compression"),
        )


def _of_caches(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        yield (entry_fields(entry) or {}).get("compression", "gzip")


def _file() -> Path:
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return Path(folder, "prefect-docker-attest", "compression")
