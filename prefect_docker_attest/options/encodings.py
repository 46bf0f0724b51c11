"""Finds files in UTF-16, which BuildKit does not read. PowerShell's ``>`` writes them."""

from __future__ import annotations

import os

from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.failures import Failure

_SHORTEST = 7  # bytes that show an encoding without a byte order mark
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def is_utf16(start: bytes) -> bool:
    """Whether a text that starts with these bytes is in UTF-16: by its byte order mark, or every other byte is 0."""
    zeros = {start[0::2].count(0) * 2, start[1::2].count(0) * 2}
    return start.startswith(_BYTE_ORDER_MARKS) or (len(start) > _SHORTEST and max(zeros) >= len(start) - 1)


def check_dockerignore(context: str, dockerfile: str) -> None:
    """Refuse a .dockerignore in UTF-16: BuildKit would ignore its patterns, and put hidden files into the image.

    Args:
        context: build context
        dockerfile: path of the Dockerfile. ``NAME.dockerignore`` next to it replaces .dockerignore

    Raises:
        BuildFailed: the file is in UTF-16
    """
    for path in (f"{dockerfile}.dockerignore", os.path.join(context, ".dockerignore")):
        try:
            with open(path, "rb") as file:
                start = file.read(256)
        except (OSError, ValueError):  # it does not exist, or the context is not a folder
            continue
        if is_utf16(start):
            note = f"{path} is in UTF-16, but BuildKit reads UTF-8: it would ignore the patterns without an error."
            raise BuildFailed(
                Failure(notes=(note,), tip="Save it as UTF-8. In PowerShell: `Set-Content -Encoding utf8`.")
            )
        return
