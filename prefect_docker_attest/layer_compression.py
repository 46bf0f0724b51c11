"""How layers are compressed: strict for users' texts, tolerant for media types. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from typing_extensions import Self

Method = Literal["gzip", "zstd", "uncompressed"]
"""How a layer is compressed, with BuildKit's word."""

METHODS: tuple[Method, ...] = get_args(Method)

# BuildKit accepts any number, and uses another level for those outside of these (moby/buildkit, README.md, "Image/
# Registry").
_HIGHEST_LEVELS = {"gzip": 9, "zstd": 22}
_TEXT = re.compile(r"(?P<method>[a-z]+)(?::(?P<level>\d{1,2}))?", re.ASCII)


class NotACompressionError(ValueError):
    """A text is not a compression. The message is a part of a sentence, such as ``must be ...``."""


@dataclass(frozen=True)
class Compression:
    """The compression of an image's new layers.

    Attributes:
        method: how they are compressed
        level: from 0 for the fastest to 9 (``gzip``) or 22 (``zstd``) for the smallest layers; `None` for BuildKit's
            default
    """

    method: Method
    level: int | None = None

    @classmethod
    def of_user(cls, text: str) -> Self:
        """Parse a method, or a method and its level: ``zstd``, ``zstd:3``.

        Raises:
            NotACompressionError: the text is neither
        """
        named = _TEXT.fullmatch(text.strip().lower())
        method = next((method for method in METHODS if named and named["method"] == method), None)
        if named is None or method is None:
            raise NotACompressionError("must be 'zstd', 'gzip' or 'uncompressed', or have a level as 'zstd:3'")
        if named["level"] is None:
            return cls(method)
        level, highest = int(named["level"]), _HIGHEST_LEVELS.get(method)
        if highest is None:
            raise NotACompressionError(f"must not have a level: {method} has none")
        if level > highest:
            raise NotACompressionError(f"must have a level from 0 to {highest}")
        return cls(method, level)

    def __str__(self) -> str:
        return self.method if self.level is None else f"{self.method}:{self.level}"


GZIP = Compression("gzip")
"""BuildKit's default."""


def named_in(media_type: str) -> Method | None:
    """Return the compression that the media type of a layer names; `None` for a type of unknown form."""
    start, _, end = media_type.removesuffix("+encrypted").rpartition(".tar")
    suffixes = set(re.split(r"[.+]", end)) - {""}
    if not start or not suffixes <= {"gzip", "zstd"} or len(suffixes) > 1:
        return None
    return "zstd" if "zstd" in suffixes else "gzip" if suffixes else "uncompressed"
