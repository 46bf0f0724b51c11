"""Reads from HTTP servers with limited memory. A server can be slow or hostile, or can send data without an end.

The client uses the HTTP adapter of requests, like docker-py: httpx needs 70 ms more CPU time for each 100 MB. It does
not use a session of requests, because a session reads the whole body of each redirect.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import zlib
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies

from prefect_docker_attest.images import certificates
from prefect_docker_attest.images.documents import LATER, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, UnicodeError)
"""The exceptions that a request and the reading of its response raise. `reason` returns their text."""

REDIRECTS = 10
"""Maximum number of redirects for one request."""

_PIECE = 1 << 18  # bytes
_LONGEST_ERROR = 64 << 10  # bytes of an error response that are read
_LONGEST_MESSAGE = 300  # characters of a registry's own error message
_DOCUMENT_TIME, _ERROR_TIME = 60, 5  # seconds to read a whole document, or a whole error response
_CONNECT_TIME, _READ_TIME = 10, 30  # seconds
_WRAPPERS = 8  # exceptions that wrap the cause of an error
_CONNECTION = re.compile(r"^(<[^>]*>|HTTPS?Connection\w*\([^)]*\)): ")  # the start of urllib3's messages
_REDIRECTING = (301, 302, 303, 307, 308)


class Response:
    """A response whose body has not been read yet.

    Attributes:
        status: status code, such as 200
        url: address of the response, after redirects
        headers: headers; the case of their names does not matter
    """

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.url = str(response.url)
        self.headers: Mapping[str, str] = response.headers

    @property
    def retry_after(self) -> float | None:
        """The seconds that the server asks to wait (RFC 9110, Retry-After); `None` if it names no time."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        now = datetime.now(timezone.utc)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or timezone.utc) - now).total_seconds())

    def pieces(self, size: int = _PIECE) -> Iterator[bytes]:
        """Yield the body as the server sent it, not decompressed.

        Args:
            size: maximum size of a piece, in bytes
        """
        raw = self._response.raw
        while piece := raw.read(size, decode_content=False):
            yield piece

    def body(self, name: str, longest: int) -> bytes:
        """Return the whole body.

        Args:
            name: name of the document in error messages
            longest: maximum size, in bytes

        Raises:
            ImageError: the body is too long, takes too long, or cannot be decompressed
        """
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):
            raise ImageError(f"{name} has the content encoding {encoding[:80]!r}, which is not supported.")
        # A piece of 64 KiB can decompress to 64 MB, so the decompressor stops at the maximum size.
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding != "identity" else None
        content = bytearray()
        end = time.monotonic() + _DOCUMENT_TIME
        for piece in self.pieces(1 << 16):
            try:
                content += decoder.decompress(piece, longest + 1 - len(content)) if decoder else piece
            except zlib.error as error:
                raise ImageError(f"{name} cannot be decompressed: {error}.") from None
            if len(content) > longest:
                raise ImageError(f"{name} is longer than {longest:,} bytes.")
            if time.monotonic() > end:
                raise ImageError(f"{name} did not arrive within {_DOCUMENT_TIME} seconds.", LATER, retryable=True)
        if decoder and not decoder.eof:
            raise ImageError(f"{name} cannot be decompressed: the data is cut off.")
        return bytes(content)

    def status_line(self) -> str:
        """Return the status of an error with the registry's message, such as ``404 Not Found (manifest unknown)``."""
        status_line = f"{self.status} {self._response.reason}"
        content = bytearray()
        end = time.monotonic() + _ERROR_TIME
        with contextlib.suppress(*ERRORS, ValueError, LookupError, TypeError, RecursionError):
            for piece in self.pieces(1 << 14):
                content += piece
                if len(content) > _LONGEST_ERROR or time.monotonic() > end:
                    break
            message = json.loads(content[:_LONGEST_ERROR])["errors"][0]["message"]
            status_line += f" ({str(message)[:_LONGEST_MESSAGE]})"
        return status_line


class Client:
    """An HTTP client. Several threads can use it at the same time.

    Args:
        trust_env: whether to use the proxies that the environment names
    """

    def __init__(self, *, trust_env: bool) -> None:
        self._trust_env = trust_env
        self._verify, adapter = certificates.trusted()
        self._adapter = adapter(pool_maxsize=16)

    def close(self) -> None:
        self._adapter.close()

    @contextlib.contextmanager
    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        form: Mapping[str, str] | None = None,
        redirects: int = REDIRECTS,
    ) -> Iterator[Response]:
        """Send a request, follow its redirects, and give the response.

        Args:
            url: address to request
            headers: request headers. A redirect to another server does not get the header ``Authorization``
            form: fields to post; without them the request is a GET
            redirects: maximum number of redirects

        Raises:
            requests.RequestException: the server does not answer, or its redirects are invalid or too many. All errors
                are those in `ERRORS`
        """
        with self._request("POST" if form else "GET", url, headers, form, redirects) as response:
            yield response

    @contextlib.contextmanager
    def put(self, url: str, headers: Mapping[str, str], content: bytes) -> Iterator[Response]:
        """Upload content, follow redirects, and give the response. Other arguments and errors are those of `get`."""
        with self._request("PUT", url, headers, content, REDIRECTS) as response:
            yield response

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Mapping[str, str] | bytes | None,
        redirects: int,
    ) -> Iterator[Response]:
        sent = dict(headers)
        for _ in range(redirects + 1):
            request = requests.Request(method, url, sent, data=data).prepare()
            proxies = get_environ_proxies(url, no_proxy=None) if self._trust_env else {}
            times = _CONNECT_TIME, _READ_TIME
            answer = self._adapter.send(request, stream=True, timeout=times, verify=self._verify, proxies=proxies)
            try:
                target = answer.headers.get("location") if answer.status_code in _REDIRECTING else None
                if target is None:
                    yield Response(answer)
                    return
            finally:
                answer.close()
            try:
                following = urljoin(url, target)
                scheme, host, _ = where = origin(following)
            except ValueError:
                raise requests.exceptions.InvalidURL("it redirects to an invalid address") from None
            if scheme not in ("http", "https") or not host:
                raise requests.exceptions.InvalidSchema("it redirects to an address that is not http or https")
            if where != origin(url):
                sent.pop("Authorization", None)
            url = following
        raise requests.TooManyRedirects(f"more than {redirects} redirects")


def is_retryable(status: int) -> bool:
    """Whether a request can succeed later that was answered with this status."""
    return status >= 500 or status == 429  # noqa: PLR2004


def is_temporary(error: Exception) -> bool:
    """Whether a request can succeed later that failed with one of `ERRORS`."""
    permanent = (requests.exceptions.SSLError, urllib3.exceptions.SSLError, requests.TooManyRedirects, ValueError)
    return not isinstance(error, permanent)


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL. Credentials are valid for one origin only.

    Raises:
        ValueError: the text is not a URL
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def reason(error: BaseException) -> str:
    """Return the text of the error's cause, without the exceptions of libraries that wrap it."""
    for _ in range(_WRAPPERS):
        inner = [part for part in (getattr(error, "reason", None), *error.args) if isinstance(part, BaseException)]
        if not inner:
            break
        error = inner[0]
    text = " ".join(_CONNECTION.sub("", str(error)).split()) or type(error).__name__
    return text[:_LONGEST_MESSAGE]
