"""Finds docker's credentials for a registry, and gets tokens for them.

Error messages contain no secrets. So they do not quote credential helpers and token servers.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import requests
from docker import auth
from docker import errors as docker_errors

from prefect_docker_attest import subprocesses
from prefect_docker_attest.images import http
from prefect_docker_attest.images.documents import LATER, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.images.http import Client

_HELPER_TIME = 20  # seconds; a helper may ask a cloud service, or wait for the user to touch a security key
_REFUSED = (401, 403)
_LONGEST_TOKEN = 1 << 20  # bytes
_TOKEN = re.compile(r"[!-~]+")  # RFC 6750 allows fewer characters, but registries use more
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,"]*))')  # RFC 9110, without escaped quotes: no registry uses them
_NO_CREDENTIALS = "credentials not found in native keychain"  # docker-credential-helpers, credentials/error.go
_SEE_CONFIG = "Check credsStore, credHelpers and auths in docker's config.json, or run `docker login {registry}`."


class Refused(Exception):
    """The token server refused the credentials. The text is the status of its response."""


class Authorization:
    """The ``Authorization`` header for one repository of a registry. It is renewed when the registry refuses it.

    It supports basic authentication (RFC 7617) and tokens (distribution/distribution, docs/spec/auth). Several threads
    can use it at the same time.

    Args:
        client: HTTP client for the token server
        registry: name under which docker stores the credentials
        credentials: as `find_credentials` returns them; `None` for docker's own, which are read when they are needed
        encrypted: whether the registry uses https; then credentials are never sent over plain http

    Attributes:
        header: value of the header; `None` before the first `renew`
    """

    def __init__(
        self, client: Client, registry: str, credentials: Mapping[str, str] | None = None, *, encrypted: bool
    ) -> None:
        self._client = client
        self._registry = registry
        self._encrypted = encrypted
        self._lock = threading.Lock()
        self._credentials = credentials
        self.header: str | None = None

    def renew(self, challenge: str, refused: str | None) -> bool:
        """Renew the header, and return whether it differs from the header that the registry refused.

        Args:
            challenge: the registry's header ``WWW-Authenticate``
            refused: the header that the registry refused

        Raises:
            Refused: the token server refuses the credentials
            ImageError: the credentials cannot be read, or the token server does not send a token
        """
        with self._lock:  # if the registry refuses several threads, only the first one renews the header
            if self.header == refused:
                self.header = self._answer(challenge)
            return self.header not in (None, refused)

    def _answer(self, challenge: str) -> str | None:
        if self._credentials is None:
            self._credentials = find_credentials(self._registry)
        bearer = re.search(r"\bbearer\s+(.*)", challenge, re.IGNORECASE)
        if bearer:
            parameters = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(bearer[1])}
            return self._token(parameters, self._credentials)
        return _basic(self._credentials) if "Username" in self._credentials else None

    def _token(self, parameters: Mapping[str, str], known: Mapping[str, str]) -> str:
        realm = self._realm(parameters.get("realm", ""))
        server = f"the token server {urlsplit(realm).hostname} of registry {self._registry}"
        query = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        form: dict[str, str] | None = None
        headers, redirects = {"Accept-Encoding": "identity"}, http.REDIRECTS
        if "IdentityToken" in known:
            # No redirects: they would send the identity token to another server.
            form, redirects = {**query, "grant_type": "refresh_token", "client_id": "docker"}, 0
            form["refresh_token"] = known["IdentityToken"]
        else:
            realm = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            headers |= {"Authorization": _basic(known)} if "Username" in known else {}
        try:
            with self._client.get(realm, headers, form=form, redirects=redirects) as response:
                if response.status in _REFUSED:
                    raise Refused(response.status_line())
                if response.status != requests.codes.ok:
                    retryable = http.is_retryable(response.status)
                    raise ImageError(
                        f"{server} answers {response.status}.",
                        LATER,
                        retryable=retryable,
                        retry_after=response.retry_after,
                    )
                content = response.body(f"the answer of {server}", _LONGEST_TOKEN)
        except http.ERRORS as error:
            # The error's text is not shown: it may quote the request, which contains credentials.
            raise ImageError(
                f"{server} does not answer ({type(error).__name__}).",
                "Check the network.",
                retryable=http.is_temporary(error),
            ) from None
        token = _token_in(content)
        if token is None:
            raise ImageError(f"{server} did not send a usable token.", f"Run `docker login {self._registry}`.")
        return f"Bearer {token}"

    def _realm(self, text: str) -> str:
        try:
            scheme, host, _ = http.origin(text)
        except ValueError:
            scheme, host = "", None
        if scheme not in ("http", "https") or not host:
            raise ImageError(f"registry {self._registry} asks for a token, but names no valid token server.")
        if scheme != "https" and self._encrypted:
            raise ImageError(
                f"registry {self._registry} names the token server {host} without https. Credentials are not sent."
            )
        return text


def _token_in(content: bytes) -> str | None:
    try:
        answer = json.loads(content)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        return None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None


def _basic(known: Mapping[str, str]) -> str:
    return "Basic " + base64.b64encode(f"{known['Username']}:{known['Password']}".encode()).decode()


def find_credentials(registry: str, config: auth.AuthConfig | None = None) -> dict[str, str]:
    """Find the credentials for a registry in docker's configuration or its credential helper.

    Args:
        registry: name under which docker stores the credentials
        config: configuration of a docker-py client, which may have logged in; `None` reads docker's configuration

    Returns:
        ``Username`` and ``Password``, or ``IdentityToken``; empty if there are no credentials

    Raises:
        ImageError: the configuration cannot be read, or the credential helper fails
    """
    see_config = _SEE_CONFIG.format(registry=registry)
    try:
        config = auth.load_config() if config is None else config
        store = config.get_credential_store(registry)
        found = _from_helper(store, registry) if store else None
        if found is None:
            entry = auth.resolve_authconfig({"auths": config.auths}, registry) or {}
            found = {name: value for name, value in entry.items() if value}
    except (docker_errors.DockerException, ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError):
        raise ImageError(f"docker's configuration for {registry} cannot be read.", see_config) from None
    return read_credentials(found)


def read_credentials(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the credentials in an entry of config.json, a helper's answer or docker-py's ``auth_config``.

    Returns:
        as `find_credentials`; incomplete credentials are ignored
    """
    # The keys of each start with letters of another case.
    found = {str(name).lower(): value for name, value in entry.items()}
    names = ("Username", "Password", "IdentityToken")
    known = {name: found[name.lower()] for name in names if isinstance(found.get(name.lower()), str)}
    return known if {"Username", "Password"} <= known.keys() or "IdentityToken" in known else {}


def _from_helper(store: str, registry: str) -> dict[str, Any] | None:
    """Ask a credential helper; return `None` if it has no credentials. docker-py's own function has no timeout."""
    program = f"docker-credential-{store}"
    server = auth.INDEX_URL if registry == auth.INDEX_NAME else registry
    problem = ""
    try:
        answer = subprocesses.run_bounded([shutil.which(program) or program, "get"], timeout=_HELPER_TIME, stdin=server)
        if answer.returncode == 0:
            return _credentials(answer.stdout)
        if answer.returncode == subprocesses.TIMED_OUT:
            problem = f"docker's credential helper {program} did not answer within {_HELPER_TIME} seconds."
        elif _NO_CREDENTIALS in answer.stdout:
            return None
        else:
            problem = f"docker's credential helper {program} for {registry} failed."
    except FileNotFoundError:
        problem = f"docker's credential helper {program} for {registry} is not installed or is not on PATH."
    except OSError as error:
        problem = f"docker's credential helper {program} for {registry} cannot be started ({error.strerror})."
    except (ValueError, LookupError, TypeError, RecursionError):
        problem = f"docker's credential helper {program} for {registry} did not return Username and Secret."
    raise ImageError(problem, _SEE_CONFIG.format(registry=registry))


def _credentials(answer: str) -> dict[str, Any] | None:
    """Parse a helper's answer; `None` if it is empty: docker-credential-pass returns that for an unknown server."""
    credentials = json.loads(answer)
    name, secret = credentials["Username"], credentials["Secret"]
    if not name and not secret:
        return None
    return {"IdentityToken": secret} if name == auth.TOKEN_USERNAME else {"Username": name, "Password": secret}
