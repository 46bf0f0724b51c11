"""Does something with several images at the same time."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from prefect_docker_attest.images.layers import Meter

R = TypeVar("R")

_IMAGES = 6  # at the same time
_POLL_INTERVAL = 1  # seconds


class Activity:
    """Stops waiting when nothing happens. Each request has its own timeout, but a server can cause many requests.

    Args:
        limit: seconds without a finished image and without a piece of a layer
        meter: shows how much of each layer has been read
    """

    def __init__(self, limit: int, meter: Meter) -> None:
        self.limit = limit
        self._meter = meter
        self._last = time.monotonic()

    def record(self) -> None:
        """Record that something happened."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def meter(self, title: str, total: int | None) -> Iterator[Callable[[int], object]]:
        """Show the progress of one layer, and record each piece as activity: an `images.layers.Meter`."""
        with self._meter(title, total) as advance:

            def advance_and_record(length: int) -> None:
                advance(length)
                self.record()

            yield advance_and_record

    def wait(self, future: Future[R]) -> R | None:
        """Wait for a result; return `None` if nothing happened for `limit` seconds."""
        while True:
            idle = time.monotonic() - self._last >= self.limit
            done, _ = wait([future], timeout=0 if idle else _POLL_INTERVAL)
            if done:
                return future.result()
            if idle:
                return None


def each_image(
    references: Sequence[str],
    work: Callable[[str], R],
    failed: Callable[[str, ImageError], R],
    activity: Activity,
) -> Iterator[R]:
    """Do the work for images at the same time, and yield the results in the order of the names.

    Args:
        references: names of images
        work: returns the result for one image
        failed: returns the result for an image whose work failed
        activity: decides when to stop waiting
    """

    def result(reference: str) -> R:
        try:
            return work(reference)
        except ImageError as error:
            return failed(reference, error)
        except Exception as error:  # a bug must not stop the work for the other images
            name = type(error).__name__
            return failed(reference, ImageError(f"The {work.__name__} failed because of a bug ({name}: {error})."))
        finally:
            activity.record()

    images = Workers(_IMAGES)
    for reference, future in [(reference, images.submit(result, reference)) for reference in references]:
        silence = ImageError(f"There was no answer for {activity.limit} seconds.", retryable=True)
        yield activity.wait(future) or failed(reference, silence)
