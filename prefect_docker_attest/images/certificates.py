"""Chooses the certificates that HTTPS servers are verified with: the user's, the system's, or certifi's."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from typing import Any

from requests.adapters import HTTPAdapter

_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
# Certificates of distributions that are not at OpenSSL's default path. truststore reads these.
_BUNDLES = (
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/ca-bundle.pem",
)


def trusted() -> tuple[str | bool, type[HTTPAdapter]]:
    """Return the argument ``verify`` of requests, and the adapter to send requests with.

    The certificates are those that a variable such as ``SSL_CERT_FILE`` names, otherwise the system's, as for docker
    and buildx. If the system has none, they are certifi's.
    """
    if named := next(filter(None, map(os.environ.get, _VARIABLES)), None):
        return named, HTTPAdapter
    return True, _SystemAdapter if _system_has_certificates() else HTTPAdapter


class _SystemAdapter(HTTPAdapter):
    """Verifies certificates with those of the system, as docker and buildx do."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=_system_context())

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=_system_context())

    def cert_verify(self, conn: Any, *_: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # and not the certificates of certifi


def _system_context() -> ssl.SSLContext:
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _system_has_certificates() -> bool:
    """Whether the system has certificates. Container images without the package ca-certificates have none."""
    paths = ssl.get_default_verify_paths()
    if sys.platform in ("darwin", "win32") or paths.cafile or any(map(os.path.isfile, _BUNDLES)):
        return True
    with contextlib.suppress(OSError):
        return bool(paths.capath and os.listdir(paths.capath))
    return False
