"""The engine of a docker-py client. This is the only module that uses docker-py's private attributes."""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker import errors as docker_errors

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.buildx.explanation_table import SOCKET_TIP
from prefect_docker_attest.buildx.target import is_containerd_store, no_answer, podman_version
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.failures import Failure
from prefect_docker_attest.names import ENGINE_VERSION
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from docker import APIClient
    from docker.auth import AuthConfig
    from typing_extensions import Self

_PODMAN_API = "/v4.0.0/libpod"  # the oldest version of Podman's own API that Podman 4 and 5 serve
_PING_TIME = 5  # seconds
_ANY_VERSION = "1.24"  # with a version, docker-py sends no request when a client is made


class DockerPyEngine:
    """The engine of a docker-py client: a `Target`.

    Args:
        api: docker-py's low-level client
        docker: the docker CLI, with the flags that select this engine; `None` for the engine of ``from_env``

    Attributes:
        api: the argument `api`
    """

    def __init__(self, api: APIClient, docker: tuple[str, ...] | None = None) -> None:
        self.api: Any = api
        self.docker = docker or docker_cli.docker_command()

    @classmethod
    def of_user(cls, api: APIClient) -> Self:
        """Return the engine of a client that the user made, which can be another one than that of ``from_env``.

        Raises:
            BuildFailed: the docker CLI cannot use that engine, because the client has TLS settings of its own
        """
        address = engine_address(api)
        with (
            contextlib.suppress(docker_errors.DockerException),  # DOCKER_HOST is wrong, but this client does not use it
            contextlib.closing(docker.from_env(version=_ANY_VERSION)) as usual,
        ):
            if engine_address(usual.api) == address:
                return cls(api)
        if address.startswith("https://"):
            note = f"The image would be built in another engine than that of this docker-py client, {address}."
            tip = "Set DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH for that engine, or use docker.from_env()."
            raise BuildFailed(Failure(notes=(note,), tip=tip))
        return cls(api, (*docker_cli.DOCKER, "--host", address.replace("http://", "tcp://", 1)))

    @property
    def address(self) -> str:
        """The engine's address, such as ``unix:///var/run/docker.sock``."""
        return engine_address(self.api)

    @property
    def name(self) -> str:
        return f"the Docker Engine at {self.address}"

    @property
    def _version(self) -> dict[str, Any]:
        # Prefect's clients have the response already: docker-py asks when it makes a client.
        known = vars(self.api)
        if ENGINE_VERSION not in known:
            known[ENGINE_VERSION] = self.api.version()
        version: dict[str, Any] = known[ENGINE_VERSION]
        return version

    @property
    def platform(self) -> Platform | None:
        return Platform.of_document(self._version.get("Os"), self._version.get("Arch"))

    @cached_property
    def uses_containerd_store(self) -> bool | None:
        try:
            return is_containerd_store(self.api.info())
        except docker_errors.APIError as error:
            if error.status_code != requests.codes.forbidden:
                raise
            return None  # a proxy in front of the socket refuses this request, which buildx does not need

    @property
    def podman(self) -> str:
        """The version of Podman, if the engine is Podman; ``""`` if it is not."""
        return podman_version(self._version)

    def image_id(self, name: str) -> str | None:
        request = f"GET /images/{name}/json"
        try:
            with self._answering(request):
                # docker-py's own `inspect_image` is patched.
                answer = self.api._result(self.api._get(self.api._url("/images/{0}/json", name)), json=True)  # noqa: SLF001
        except docker_errors.NotFound:
            return None
        except docker_errors.APIError as error:
            if error.status_code != requests.codes.forbidden:
                raise
            note = f"The engine's socket refused {request}."
            raise BuildFailed(Failure(notes=(note,), tip=SOCKET_TIP)) from error
        return str(answer["Id"])

    @contextlib.contextmanager
    def _answering(self, request: str) -> Iterator[None]:
        """Turn an exception of requests, which docker-py raises if the engine does not answer, into a failed build.

        The text of that exception is not repeated, because Prefect builds again if it contains certain words.
        """
        try:
            yield
        except docker_errors.APIError:  # an answer, and an exception of requests too
            raise
        except requests.RequestException as error:
            raise BuildFailed(no_answer(self, f"{request} ({type(error).__name__})")) from error

    def podman_image(self, image: str) -> dict[str, Any] | None:
        """Return Podman's description of its image with this id; `None` if it gives none, or if a proxy refuses it."""
        try:
            answer = self.api.get(f"{self.api.base_url}{_PODMAN_API}/images/{image}/json", timeout=self.api.timeout)
            found = answer.json() if answer.ok else None
        except (requests.RequestException, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def is_still_podman(self) -> bool:
        """Ask again whether the engine is Podman: a client can live longer than its engine. No answer counts as yes."""
        try:
            return bool(podman_version(self.api.version()))
        except (docker_errors.DockerException, requests.RequestException):
            return True

    def lists_attestations(self, image: str) -> bool:
        url = self.api._url("/images/{0}/json", image)  # noqa: SLF001
        with self._answering(f"GET /images/{image}/json"):
            answer = self.api._get(url, params={"manifests": 1}).json()  # noqa: SLF001 API 1.48, Docker 28
        return any(entry["Kind"] == "attestation" for entry in answer.get("Manifests") or ())

    def base_platforms(self, name: str) -> Sequence[Platform] | None:
        listed = self.api.inspect_distribution(name)["Platforms"]
        if listed is None:  # the image is an OCI manifest that is not in an index (Docker 26.1, 28.5)
            return None
        named = (
            Platform.of_document(entry["os"], entry["architecture"], entry.get("variant"))
            for entry in listed
            if entry["os"] != "unknown"  # an attestation
        )
        return [platform for platform in named if platform]

    def proxies(self) -> Mapping[str, str]:
        configured: dict[str, str] = self.api._proxy_configs.get_environment()  # noqa: SLF001
        return configured


def engine_address(api: Any) -> str:
    """Return the address of a docker-py client's engine, such as ``unix:///var/run/docker.sock``."""
    # docker-py's own address of a socket is http+docker://localhost, and that of any ssh server http+docker://ssh.
    adapter = getattr(api, "_custom_adapter", None)
    for scheme, attribute in (("unix", "socket_path"), ("npipe", "npipe_path"), ("ssh", "ssh_host")):
        if place := getattr(adapter, attribute, None):
            return f"{scheme}://{str(place).removeprefix('ssh://')}"
    return str(api.base_url)


def podman_of_context() -> str:
    """Return the version of Podman, if it is the engine of the docker CLI's current context.

    It takes 1 ms. ``""`` is also the answer about an engine that does not answer or is not asked: one reached by
    SSH, or that of a context, which docker-py before 7.2 does not know.
    """
    try:
        address = os.environ.get("DOCKER_HOST") or docker.ContextAPI.kwargs_from_context().get("base_url", "")
        if address.startswith("ssh"):  # a connection takes a second
            return ""
        with contextlib.closing(docker.from_env(version=_ANY_VERSION, timeout=_PING_TIME)) as client:
            headers = client.api.get(f"{client.api.base_url}/_ping", timeout=_PING_TIME).headers
    except Exception:  # docker-py raises different ones; the build shows a better error
        return ""
    return str(headers.get("Libpod-API-Version", ""))


def client_credentials(api: Any) -> AuthConfig | None:
    """Return the credentials that a docker-py client knows; `None` if it has none."""
    known: AuthConfig = api._auth_configs  # noqa: SLF001
    # docker-py reads an empty configuration again: the user can have logged in since.
    return None if known.is_empty else known
