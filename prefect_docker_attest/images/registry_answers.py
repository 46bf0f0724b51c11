"""The errors for answers of a registry that refuse a request, with advice where there is any. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from prefect_docker_attest.images import http
from prefect_docker_attest.images.documents import LATER, ImageError

if TYPE_CHECKING:
    from prefect_docker_attest.images.reference import Reference

_NOT_ALLOWED = (requests.codes.unauthorized, requests.codes.forbidden)
# Amazon ECR: "cannot be overwritten because the repository is immutable". Harbor: "configured as immutable". Artifact
# Registry: "has enabled tag immutability".
_FIXED = re.compile(r"immutab|cannot be overwritten", re.IGNORECASE)


class NotFound(ImageError):
    """The registry does not have the document or layer."""


class TagIsFixed(ImageError):
    """The registry does not let a tag name another manifest."""


@dataclass(frozen=True)
class Asked:
    """What a request asked a registry for.

    Attributes:
        image: name of the image
        path: path in the repository, such as ``manifests/v1``
        writes: whether the request writes a manifest
        tip: last sentence of the advice
    """

    image: Reference
    path: str
    writes: bool
    tip: str

    @property
    def name(self) -> str:
        """The name of the document or layer in messages, such as ``team/app:v1``."""
        wanted = self.path.partition("/")[2]
        return f"{self.image.repository}{'@' if ':' in wanted else ':'}{wanted}"

    def refusal(self, code: int, status: str, retry_after: float | None = None) -> ImageError:
        """Return the error for an answer that refuses the request.

        Args:
            code: status code
            status: status line with the registry's own message
            retry_after: seconds that the registry asks to wait; `None` if it names no time
        """
        answer = f"registry {self.image.registry} answers {status} for {self.name}."
        if http.is_retryable(code):
            return ImageError(answer, LATER, retryable=True, retry_after=retry_after)
        if self.writes and self._is_fixed(status):
            return TagIsFixed(answer)
        if code in _NOT_ALLOWED:
            return self._not_allowed(answer)
        if code == requests.codes.not_found and not self.writes:
            return NotFound(answer, f"Check the name, and that the image was pushed. {self.tip}".strip())
        return ImageError(answer)

    def failure(self, error: Exception, url: str) -> ImageError:
        """Return the error for a request that failed with one of `http.ERRORS`."""
        registry, reason = f"registry {self.image.registry}", http.reason(error)
        return ImageError(
            f"{registry} cannot be written at {url}: {reason}."
            if self.writes
            else f"{registry} cannot be read at {url}: {reason}.",
            "Check the image's name, the network, and the variables HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. "
            f"{self.tip}".strip(),
            retryable=http.is_temporary(error),
        )

    def _not_allowed(self, answer: str) -> ImageError:
        login = f"Run `docker login {self.image.registry}`"
        if self.writes:
            return ImageError(
                f"{answer} Your credentials do not allow writing it.", f"{login} with an account that can push."
            )
        reading = "The image does not exist, or your credentials do not allow reading it."
        return ImageError(f"{answer} {reading}", f"{login}. {self.tip}".strip())

    def _is_fixed(self, status: str) -> bool:
        # Names that users choose can contain these words.
        own = status.replace(self.image.repository, "").replace(self.path.partition("/")[2], "")
        return bool(_FIXED.search(own))
