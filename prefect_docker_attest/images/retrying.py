"""Sends requests again that failed for a while: one policy for everything that the package writes to registries."""

from __future__ import annotations

import random
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.names import logger

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PAUSES = (1, 3, 9)  # seconds before each retry, if the registry names no time
_LIMIT = 30  # seconds after the first attempt in which a retry can start
_SPREAD = 0.5  # seconds. Several images do not ask the registry again at the same moment.


def retried(send: Callable[[], T]) -> T:
    """Send a request, and send it again up to three times within 30 seconds if that can help.

    It helps after a 429, a 5xx and an interrupted connection. A time that the registry names in ``Retry-After`` is
    waited for.

    Args:
        send: sends the request. It can be sent twice without harm, as all requests of this package can

    Raises:
        ImageError: the last attempt failed, or a retry cannot help or would start too late
    """
    end = monotonic() + _LIMIT
    for pause in _PAUSES:
        try:
            return send()
        except ImageError as error:  # noqa: PERF203 requests take much longer
            seconds = pause + random.uniform(0, _SPREAD) if error.retry_after is None else error.retry_after  # noqa: S311
            if not error.retryable or monotonic() + seconds > end:
                raise
            logger.debug("%s Another attempt follows in %.1f seconds.", error, seconds)
            sleep(seconds)
    return send()
