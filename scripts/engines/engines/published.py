"""Reads an image from a registry over HTTP. It uses nothing of the package under test."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


@dataclass(frozen=True)
class Published:
    """One image in a registry with plain HTTP, ``127.0.0.1:PORT/name:tag``."""

    reference: str
    password: str | None = None
    """Encoded credentials for the header `Authorization: Basic`; `None` for a registry without authentication."""

    @property
    def _address(self) -> str:
        registry, _, rest = self.reference.partition("/")
        return f"http://{registry}/v2/{rest.rpartition(':')[0]}"

    def _get(self, path: str, accept: tuple[str, ...] = ()) -> bytes:
        request = urllib.request.Request(f"{self._address}/{path}", headers={"Accept": ", ".join(accept)})
        if self.password:
            request.add_header("Authorization", f"Basic {self.password}")
        with urllib.request.urlopen(request) as response:
            body: bytes = response.read()
        return body

    def manifest(self, digest: str | None = None) -> dict[str, Any]:
        """Return the manifest or index with the tag, or the one with a digest."""
        name = digest or self.reference.rpartition(":")[2]
        found: dict[str, Any] = json.loads(self._get(f"manifests/{name}", INDEXES + MANIFESTS))
        return found

    def digest(self) -> str:
        """The digest of the manifest or index under the tag."""
        content = self._get(f"manifests/{self.reference.rpartition(':')[2]}", INDEXES + MANIFESTS)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    @property
    def exists(self) -> bool:
        """Whether the registry has an image with this tag."""
        try:
            self.manifest()
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    @property
    def is_one_manifest(self) -> bool:
        return self.manifest()["mediaType"] in MANIFESTS

    def platforms(self) -> list[str]:
        """Return the platforms in an index. An attestation has the platform ``unknown/unknown``."""
        return ["{os}/{architecture}".format(**entry["platform"]) for entry in self.manifest()["manifests"]]

    def config(self, digest: str | None = None) -> dict[str, Any]:
        """Return the config of the manifest with the tag, or of the manifest with a digest."""
        found: dict[str, Any] = json.loads(self._get(f"blobs/{self.manifest(digest)['config']['digest']}"))
        return found

    def layers_match(self, digest: str | None = None) -> list[bool]:
        """Return for each layer of such a manifest whether its content matches the config."""
        blobs = [self._get(f"blobs/{layer['digest']}") for layer in self.manifest(digest)["layers"]]
        digests = [f"sha256:{hashlib.sha256(_unpacked(blob)).hexdigest()}" for blob in blobs]
        diff_ids = self.config(digest)["rootfs"]["diff_ids"]
        assert len(digests) == len(diff_ids)
        return [digest == diff_id for digest, diff_id in zip(digests, diff_ids, strict=True)]


def _unpacked(blob: bytes) -> bytes:
    if blob.startswith(b"\x1f\x8b"):
        return gzip.decompress(blob)
    if not blob.startswith(b"\x28\xb5\x2f\xfd"):
        return blob
    # The demo and the private engines run without this module.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.decompress(blob)
