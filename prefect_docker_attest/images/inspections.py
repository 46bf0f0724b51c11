"""Inspects several images at the same time."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.images.batch import Activity, each_image
from prefect_docker_attest.images.inspection import inspect_image
from prefect_docker_attest.workers import Workers, processors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.images.documents import ImageError
    from prefect_docker_attest.images.layers import Meter
    from prefect_docker_attest.images.reference import Reference
    from prefect_docker_attest.images.result import Inspection

_MOST_READERS = 4  # layers that are read at the same time
# Seconds without progress. An engine with the graphdriver store sends nothing until it has written the export.
_IDLE_LIMIT, _ENGINE_IDLE_LIMIT = 300, 900


@dataclass(frozen=True)
class Result:
    """The inspection of one image, or the reason why it failed.

    Attributes:
        reference: name of the image, as the user wrote it
        inspection: the inspection; `None` if it failed
        republish: command that publishes the image without its attestations; `None` if it has no attestations
        error: why the inspection failed; ``""`` if it succeeded
        tip: what to do about the error; ``""`` if there is no advice
        retryable: whether the same inspection can succeed later
    """

    reference: str
    inspection: Inspection | None = None
    republish: str | None = None
    error: str = ""
    tip: str = ""
    retryable: bool = False


def layer_readers() -> Workers:
    """Return threads that read layers, for all images together."""
    return Workers(min(_MOST_READERS, processors()))


def inspect_images(references: Sequence[str], meter: Meter, *, engine: bool, verify_layers: bool) -> Iterator[Result]:
    """Inspect images at the same time, and yield the results in the order of the names.

    Args:
        references: names of images
        meter: shows how much of each layer has been read
        engine: whether to inspect images in the Docker Engine instead of their registries
        verify_layers: whether to read every layer
    """
    readers = layer_readers()
    activity = Activity(_ENGINE_IDLE_LIMIT if engine else _IDLE_LIMIT, meter)

    def inspection(reference: str) -> Result:
        if engine:
            from prefect_docker_attest.images.engine_image import inspect_in_engine

            return Result(reference, inspect_in_engine(reference, activity.meter, verify_layers=verify_layers))
        return _in_registry(reference, readers, activity.meter, verify_layers=verify_layers)

    return each_image(references, inspection, _failed, activity)


def _failed(reference: str, error: ImageError) -> Result:
    return Result(reference, error=str(error), tip=error.tip, retryable=error.retryable)


def _in_registry(reference: str, readers: Workers, meter: Meter, *, verify_layers: bool) -> Result:
    from prefect_docker_attest.images.reference import Reference
    from prefect_docker_attest.images.registry_image import RegistryImage

    name = Reference.parse(reference)
    with RegistryImage(name, readers, meter) as source:
        inspection = inspect_image(source, reference, verify_layers=verify_layers)
    if not inspection.attestations or inspection.state == "corrupt":
        return Result(reference, inspection)
    return Result(reference, inspection, republishing(name, reference))


def republishing(name: Reference, reference: str) -> str:
    """Return the shell command that publishes an image again, without its attestations.

    Args:
        name: name of the image
        reference: the same name, as the user wrote it
    """
    # A digest always names the same index, so the result needs a tag.
    tag = ["--tag", name.tag or "TAG"] if name.digest else []
    return shlex.join(["prefect-docker-attest", "strip", *tag, reference])
