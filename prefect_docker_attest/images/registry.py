"""Reads and tags the manifests of a repository with docker's credentials (OCI distribution specification)."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import requests

from prefect_docker_attest.images import http, manifest
from prefect_docker_attest.images.documents import LONGEST_DOCUMENT, ImageError, digest_of
from prefect_docker_attest.images.registry_answers import Asked, NotFound
from prefect_docker_attest.images.registry_auth import Authorization, Refused
from prefect_docker_attest.images.retrying import retried

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from typing_extensions import Self

    from prefect_docker_attest.images.http import Response
    from prefect_docker_attest.images.reference import Reference

_ACCEPTED = ", ".join((*manifest.INDEX_KINDS, *manifest.MANIFEST_KINDS))
# Docker uses plain HTTP only for these registries (moby, registry/config.go: 127.0.0.0/8 is an insecure registry).
_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
OR_ENGINE = "To inspect an image in the Docker Engine, add --engine."
"""Last sentence of the tip in errors of `inspect`."""


class Repository:
    """The repository of an image in its registry. A context manager.

    Args:
        reference: name of the image
        credentials: as `registry_auth.find_credentials` returns them; `None` for docker's own
        tip: last sentence of the tip in errors
        retries: whether reading is retried if that can help, as writing always is

    Attributes:
        name: name of the registry in messages
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Mapping[str, str] | None = None,
        *,
        tip: str = OR_ENGINE,
        retries: bool = False,
    ) -> None:
        self._reference = reference
        self._tip = tip
        self._retries = retries
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
        return retried(lambda: self._document(path, digest)) if self._retries else self._document(path, digest)

    def _document(self, path: str, digest: str | None) -> tuple[str, bytes]:
        name = f"{path} of {self.name}"
        with self._send(path) as response:
            content = response.body(name, LONGEST_DOCUMENT)
        if digest and digest != digest_of(content):
            raise ImageError(f"{name} has the wrong digest {digest_of(content)}.")
        return _content_type(response), content

    def tagged(self, tag: str) -> str | None:
        """Return the digest of the manifest or index that a tag names; `None` if there is no such tag.

        Raises:
            ImageError: the registry does not tell
        """
        try:
            return digest_of(self.document(f"manifests/{tag}", None)[1])
        except NotFound:
            return None

    def put(self, name: str, media_type: str, content: bytes) -> None:
        """Write a manifest or index. What it lists must be in the repository.

        Args:
            name: a tag, or the digest of the content
            media_type: media type of the content
            content: the manifest or index

        Raises:
            ImageError: the registry refuses it, and has no such document under this name
        """
        try:
            retried(lambda: self._put(f"manifests/{name}", (media_type, content)))
        except ImageError:
            # The answer to a successful attempt can get lost. Another attempt is refused if the tag cannot be moved.
            with contextlib.suppress(ImageError):
                if digest_of(self._document(f"manifests/{name}", None)[1]) == digest_of(content):
                    return
            raise

    def _put(self, path: str, document: tuple[str, bytes]) -> None:
        with self._send(path, document) as response:
            if _content_type(response) == "text/html":  # of a proxy in front of the registry
                raise ImageError(
                    f"{self.name} answers with a page for {self._asked(path, document).name}.",
                    "Check the image's name, and the variables HTTPS_PROXY and NO_PROXY.",
                )

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
                raise self._asked(path, document).refusal(requests.codes.unauthorized, status)
            with self._request(path, self._authorization.header, document) as response:
                self._check(response, path, document)
                yield response
        except http.ERRORS as error:
            raise self._asked(path, document).failure(error, self._url) from error

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
            raise self._asked(path, document).refusal(response.status, response.status_line(), response.retry_after)

    def _asked(self, path: str, document: tuple[str, bytes] | None = None) -> Asked:
        return Asked(self._reference, path, document is not None, self._tip)


def _content_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip()


def _challenge(url: str, response: Response) -> str | None:
    """Return the registry's request for credentials. Another server, after a redirect, never gets credentials."""
    if response.status != requests.codes.unauthorized or http.origin(url) != http.origin(response.url):
        return None
    return response.headers.get("www-authenticate")
