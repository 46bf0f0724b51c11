"""An image in a registry, read with docker's own credentials (the OCI distribution specification)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import parse_http_list, parse_keqv_list

import httpx
from docker import auth
from docker import errors as docker_errors
from docker.credentials.errors import InitializationError

from prefect_docker_attest import layers, manifest
from prefect_docker_attest.inspection import LONGEST_DOCUMENT, Descriptor, ImageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rich.progress import Progress
    from typing_extensions import Self

_ACCEPTED = ", ".join((*manifest.INDEX_KINDS, *manifest.MANIFEST_KINDS))
# Docker speaks plain HTTP to these alone (moby, registry/config.go: 127.0.0.0/8 is an insecure registry).
_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_OR_ENGINE = "--engine inspects the image of that name in the Docker Engine."
# distribution/reference, regexp.go; a first part with a dot or a port, or `localhost`, is a registry.
_REFERENCE = re.compile(
    r"(?P<name>(?:(?P<registry>localhost(?::\d+)?|[\w-]+(?:\.[\w-]+)*:\d+|[\w-]+(?:\.[\w-]+)+|\[[\da-f:]+\](?::\d+)?)/)?"
    r"(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*))(?::(?P<tag>\w[\w.-]*))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


class _NotFound(ImageError):
    pass


@dataclass(frozen=True)
class Reference:
    """An image's name, taken apart.

    Attributes:
        name: as its user wrote it, without tag and digest
        registry: what docker keeps the credentials under, such as ``docker.io``
        repository: the name in the registry
        tag: ``latest`` where the name has neither tag nor digest
    """

    name: str
    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ImageError` for what is no image's name."""
        parts = _REFERENCE.fullmatch(text)
        if parts is None:
            raise ImageError(
                f"{text!r} is not an image's name, which is [REGISTRY/]NAME[:TAG][@sha256:DIGEST], NAME in lower case."
            )
        name, registry, repository, tag, digest = parts.group("name", "registry", "repository", "tag", "digest")
        if registry in (None, "docker.io", "index.docker.io"):
            registry, repository = "docker.io", repository if "/" in repository else f"library/{repository}"
        return cls(name, registry, repository, tag or (None if digest else "latest"), digest)


class RegistryImage:
    """One image in a registry: an `inspection.Source`, and a context manager."""

    def __init__(self, reference: Reference, progress: Progress) -> None:
        self._reference = reference
        self._progress = progress
        self.name = f"registry {reference.registry}"
        host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        scheme = "http" if _LOCAL.fullmatch(host) else "https"
        self._client = httpx.Client(
            base_url=f"{scheme}://{host}/v2/{reference.repository}/",
            auth=_DockerAuth(reference.registry, scheme),
            follow_redirects=True,
            timeout=httpx.Timeout(30, connect=10),
            trust_env=scheme == "https",  # no proxy for this machine, as in Go's net/http
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def root(self) -> tuple[Descriptor, bytes]:
        media_type, content = self._document(f"manifests/{self._reference.digest or self._reference.tag}")
        return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}, content

    def read(self, descriptor: Descriptor) -> bytes | None:
        known = descriptor["mediaType"] in {**manifest.INDEX_KINDS, **manifest.MANIFEST_KINDS}
        return self._document(f"{'manifests' if known else 'blobs'}/{descriptor['digest']}")[1]

    def diff_id(self, layer: Descriptor) -> str:
        digest: str = layer["digest"]
        try:
            with self._get(f"blobs/{digest}") as response:
                pieces = response.iter_raw(layers.PIECE)
                return layers.diff_id(layers.shown(pieces, self._progress, digest[:19], layer["size"]), digest)
        except _NotFound as error:
            if layer.get("urls"):  # a base layer of Windows, left with its maker
                raise layers.LayerUnverifiable("it is not in the registry, but elsewhere") from error
            raise layers.LayerDamaged("the registry does not have it") from error

    def _document(self, path: str) -> tuple[str, bytes]:
        content = bytearray()
        with self._get(path) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > LONGEST_DOCUMENT:
                    raise ImageError(f"{self.name} answers {path} with more than {LONGEST_DOCUMENT} bytes.")
        wanted = path.partition("/")[2]
        if ":" in wanted and wanted != _digest(content):
            raise ImageError(f"{self.name} answers {path} with what has the digest {_digest(content)}.")
        return response.headers.get("content-type", "").partition(";")[0].strip(), bytes(content)

    @contextlib.contextmanager
    def _get(self, path: str) -> Iterator[httpx.Response]:
        headers = {"Accept": _ACCEPTED if path.startswith("manifests/") else "*/*", "Accept-Encoding": "identity"}
        try:
            with self._client.stream("GET", path, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise self._refusal(response, path)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last of a host's name
            raise ImageError(
                f"{self.name} cannot be read at {self._client.base_url}: {error or type(error).__name__}. Check the "
                f"image's name, the network, and HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. {_OR_ENGINE}"
            ) from error

    def _refusal(self, response: httpx.Response, path: str) -> ImageError:
        status = f"{response.status_code} {response.reason_phrase}"
        with contextlib.suppress(ValueError, LookupError, TypeError):
            status += f" ({response.json()['errors'][0]['message']})"
        wanted = path.partition("/")[2]
        name = f"{self._reference.repository}{'@' if ':' in wanted else ':'}{wanted}"
        said = f"{self.name} answers {status} for {name}."
        if response.status_code == httpx.codes.NOT_FOUND:
            return _NotFound(f"{said} Check the name, and that it was pushed. {_OR_ENGINE}")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            login = f"`docker login {self._reference.registry}`"
            return ImageError(f"{said} It does not exist, or these credentials may not read it: {login}. {_OR_ENGINE}")
        return ImageError(f"{said} Try again later.")


class _DockerAuth(httpx.Auth):
    """Answers a registry's challenge: RFC 7617, and the tokens of distribution/distribution's docs/spec/auth."""

    def __init__(self, registry: str, scheme: str) -> None:
        self._registry = registry
        self._scheme = scheme
        self._header: str | None = None

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        challenge = response.headers.get("www-authenticate", "")
        if response.status_code != httpx.codes.UNAUTHORIZED or not challenge:
            return
        known = _credentials(self._registry)
        bearer = re.search(r"\bbearer\s+(.*)", challenge, re.IGNORECASE)
        if bearer:
            asked = parse_keqv_list([item for item in parse_http_list(bearer[1]) if "=" in item])
            token = yield self._token_request(asked, known)
            token.read()
            if token.status_code != httpx.codes.OK:
                return
            answer: dict[str, str] = token.json()
            self._header = f"Bearer {answer.get('token') or answer.get('access_token')}"
        elif "Username" in known:
            self._header = _basic(known)
        else:
            return
        request.headers["Authorization"] = self._header
        yield request

    def _token_request(self, asked: dict[str, str], known: dict[str, str]) -> httpx.Request:
        realm = httpx.URL(asked.get("realm", ""))
        if realm.scheme != "https" and self._scheme == "https":
            raise ImageError(f"registry {self._registry} wants credentials sent in the clear, to {realm.host}.")
        query: dict[str, str] = {name: asked[name] for name in ("service", "scope") if name in asked}
        if "IdentityToken" in known:
            form = {"grant_type": "refresh_token", "refresh_token": known["IdentityToken"], "client_id": "docker"}
            return httpx.Request("POST", realm, data={**query, **form})
        headers = {"Authorization": _basic(known)} if "Username" in known else {}
        return httpx.Request("GET", realm.copy_merge_params(query), headers=headers)


def _digest(content: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _basic(known: dict[str, str]) -> str:
    return "Basic " + base64.b64encode(f"{known['Username']}:{known['Password']}".encode()).decode()


def _credentials(registry: str) -> dict[str, str]:
    """What docker's configuration or its credential helper has for a registry; nothing secret in an error."""
    try:
        found: dict[str, Any] = auth.resolve_authconfig(auth.load_config(), registry) or {}
    except docker_errors.DockerException as error:
        cause = error.__cause__
        reason = f": {cause}" if isinstance(cause, InitializationError) else ""
        raise ImageError(
            f"docker's credential helper for {registry} failed{reason}. See credsStore and credHelpers in docker's "
            f"config.json, and `docker login {registry}`."
        ) from None
    # The entries of config.json have other initials than those of a helper.
    return {name[:1].upper() + name[1:]: value for name, value in found.items() if value}
