"""Reads and tags the manifests of a repository with docker's credentials (OCI distribution specification)."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import requests

from prefect_docker_attest.images import http, manifest
from prefect_docker_attest.images.documents import LONGEST_DOCUMENT, ImageError, digest_of
from prefect_docker_attest.images.registry_auth import Authorization, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from prefect_docker_attest.images.http import Response
    from prefect_docker_attest.images.reference import Reference

_ACCEPTED = ", ".join((*manifest.INDEX_KINDS, *manifest.MANIFEST_KINDS))
# Docker uses plain HTTP only for these registries (moby, registry/config.go: 127.0.0.0/8 is an insecure registry).
_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_OR_ENGINE = "To inspect an image in the Docker Engine, add --engine."


class NotFound(ImageError):
    """The registry does not have the document or layer."""


class Repository:
    """The repository of an image in its registry. A context manager.

    Args:
        reference: name of the image
        credentials: as `registry_auth.find_credentials` returns them; `None` for docker's own
        tip: last sentence of the tip in errors

    Attributes:
        name: name of the registry in messages
    """

    def __init__(
        self, reference: Reference, credentials: Mapping[str, str] | None = None, *, tip: str = _OR_ENGINE
    ) -> None:
        self._reference = reference
        self._tip = tip
        self.name = f"registry {reference.registry}"
        host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        encrypted = not _LOCAL.fullmatch(host)
        # Like Go's net/http, the client uses no proxy for a registry on this machine.
        self._client = http.Client(trust_env=encrypted)
        self._url = f"{'https' if encrypted else 'http'}://{host}/v2/{reference.repository}"
        self._authorization = Authorization(self._client, reference.registry, credentials, encrypted=encrypted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def document(self, path: str, digest: str | None) -> tuple[str, bytes]:
        """Return the media type of a document, as the registry's header names it, and its content.

        Args:
            path: path in the repository, such as ``manifests/v1``
            digest: digest of the content; `None` accepts any

        Raises:
            ImageError: the document cannot be read, or has the wrong digest
        """
        name = f"{path} of {self.name}"
        with self._send(path) as response:
            content = response.body(name, LONGEST_DOCUMENT)
        if digest and digest != digest_of(content):
            raise ImageError(f"{name} has the wrong digest {digest_of(content)}.")
        return response.headers.get("content-type", "").partition(";")[0].strip(), content

    def put_tag(self, tag: str, media_type: str, content: bytes) -> None:
        """Let a tag name a manifest or index that is in the repository.

        Raises:
            ImageError: the registry refuses it
        """
        with self._send(f"manifests/{tag}", (media_type, content)):
            pass

    @contextlib.contextmanager
    def _send(self, path: str, document: tuple[str, bytes] | None = None) -> Iterator[Response]:
        """Send a request with the registry's authorization, and give the response. Its body is not read.

        Args:
            path: path in the repository
            document: media type and content to put there; `None` asks for what is there
        """
        try:
            sent = self._authorization.header
            with self._request(path, sent, document) as response:
                challenge = _challenge(f"{self._url}/{path}", response)
                if challenge is None:
                    self._check(response, path, document)
                    yield response
                    return
                status = response.status_line()
            try:
                renewed = self._authorization.renew(challenge, sent)
            except Refused as refused:
                renewed, status = False, str(refused)
            if not renewed:
                raise self._refusal(requests.codes.unauthorized, status, path)
            with self._request(path, self._authorization.header, document) as response:
                self._check(response, path, document)
                yield response
        except http.ERRORS as error:
            raise ImageError(
                f"{self.name} cannot be read at {self._url}: {http.reason(error)}.",
                "Check the image's name, the network, and the variables HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. "
                f"{self._tip}",
                retryable=http.is_temporary(error),
            ) from error

    def _request(
        self, path: str, authorization: str | None, document: tuple[str, bytes] | None
    ) -> AbstractContextManager[Response]:
        url = f"{self._url}/{path}"
        headers = {
            "Accept": _ACCEPTED if path.startswith("manifests/") else "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "prefect-docker-attest",
        }
        if authorization:
            headers["Authorization"] = authorization
        if document is None:
            return self._client.get(url, headers)
        media_type, content = document
        return self._client.put(url, headers | {"Content-Type": media_type}, content)

    def _check(self, response: Response, path: str, document: tuple[str, bytes] | None) -> None:
        # As docker does: not all registries answer 201 to an upload.
        accepted = range(200, 300) if document else (requests.codes.ok,)
        if response.status not in accepted:
            raise self._refusal(response.status, response.status_line(), path)

    def _refusal(self, code: int, status: str, path: str) -> ImageError:
        wanted = path.partition("/")[2]
        name = f"{self._reference.repository}{'@' if ':' in wanted else ':'}{wanted}"
        answer = f"{self.name} answers {status} for {name}."
        if code == requests.codes.not_found:
            return NotFound(answer, f"Check the name, and that the image was pushed. {self._tip}")
        if code in (requests.codes.unauthorized, requests.codes.forbidden):
            return ImageError(
                f"{answer} The image does not exist, or your credentials do not allow reading it.",
                f"Run `docker login {self._reference.registry}`. {self._tip}",
            )
        return ImageError(answer, "Try again later.", retryable=http.is_retryable(code))


def _challenge(url: str, response: Response) -> str | None:
    """Return the registry's request for credentials. Another server, after a redirect, never gets credentials."""
    if response.status != requests.codes.unauthorized or http.origin(url) != http.origin(response.url):
        return None
    return response.headers.get("www-authenticate")
