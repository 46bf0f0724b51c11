"""Inspects several images at the same time."""

from __future__ import annotations

import contextlib
import functools
import time
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest import subprocesses
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.inspection import inspect_image, republishing
from prefect_docker_attest.workers import Workers, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from prefect_docker_attest.images.layers import Meter
    from prefect_docker_attest.images.result import Inspection

_IMAGES = 6  # images that are inspected at the same time
_MOST_READERS = 4  # layers that are read at the same time
# Seconds without progress. An engine with the graphdriver store sends nothing until it has written the export.
_IDLE_LIMIT, _ENGINE_IDLE_LIMIT = 300, 900
_POLL_INTERVAL = 1  # seconds
_CLI_TIME = 10  # seconds


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


def inspect_images(references: Sequence[str], meter: Meter, *, engine: bool, verify_layers: bool) -> Iterator[Result]:
    """Inspect images at the same time, and yield the results in the order of the names.

    Args:
        references: names of images
        meter: shows how much of each layer has been read
        engine: whether to inspect images in the Docker Engine instead of their registries
        verify_layers: whether to read every layer
    """
    readers = Workers(min(_MOST_READERS, processors()))
    activity = _Activity(_ENGINE_IDLE_LIMIT if engine else _IDLE_LIMIT)

    def inspect(reference: str) -> Result:
        try:
            if engine:
                from prefect_docker_attest.images.engine_image import inspect_in_engine

                inspection = inspect_in_engine(reference, activity.meter(meter), verify_layers=verify_layers)
                return Result(reference, inspection)
            return _in_registry(reference, readers, activity.meter(meter), verify_layers=verify_layers)
        except ImageError as error:
            return Result(reference, error=str(error), tip=error.tip, retryable=error.retryable)
        except Exception as error:  # a bug must not stop the inspection of the other images
            name = type(error).__name__
            return Result(reference, error=f"The inspection failed because of a bug ({name}: {error}).")
        finally:
            activity.record()

    images = Workers(_IMAGES)
    for reference, future in [(reference, images.submit(inspect, reference)) for reference in references]:
        silence = f"There was no answer for {activity.limit} seconds."
        yield activity.wait(future) or Result(reference, error=silence, retryable=True)


class _Activity:
    """Stops waiting when nothing happens. Each request has its own timeout, but a server can cause many requests.

    Attributes:
        limit: seconds without a finished image and without a piece of a layer
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._last = time.monotonic()

    def record(self) -> None:
        """Record that something happened."""
        self._last = time.monotonic()

    def meter(self, meter: Meter) -> Meter:
        """Return a meter that shows the same progress, and records each piece as activity."""

        @contextlib.contextmanager
        def recording(title: str, total: int | None) -> Iterator[Callable[[int], object]]:
            with meter(title, total) as advance:

                def advance_and_record(length: int) -> None:
                    advance(length)
                    self.record()

                yield advance_and_record

        return recording

    def wait(self, future: Future[Result]) -> Result | None:
        """Wait for a result; return `None` if nothing happened for `limit` seconds."""
        while True:
            idle = time.monotonic() - self._last >= self.limit
            done, _ = wait([future], timeout=0 if idle else _POLL_INTERVAL)
            if done:
                return future.result()
            if idle:
                return None


def _in_registry(reference: str, readers: Workers, meter: Meter, *, verify_layers: bool) -> Result:
    from prefect_docker_attest.images.reference import Reference
    from prefect_docker_attest.images.registry_image import RegistryImage

    name = Reference.parse(reference)
    with RegistryImage(name, readers, meter) as source:
        inspection = inspect_image(source, reference, verify_layers=verify_layers)
    if not inspection.attestations or inspection.state == "corrupt":
        return Result(reference, inspection)
    command = republishing(inspection, name.name, name.tag or "TAG", prefer_index_flag=_prefer_index_flag())
    return Result(reference, inspection, command)


@functools.cache
def _prefer_index_flag() -> bool:
    """Whether ``docker buildx imagetools create`` has the flag ``--prefer-index``."""
    try:
        answer = subprocesses.run_bounded(["docker", "buildx", "imagetools", "create", "--help"], timeout=_CLI_TIME)
    except OSError:  # no docker CLI here
        return False
    return "--prefer-index" in answer.stdout
