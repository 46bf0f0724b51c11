"""What a registry holds under a name: read over HTTP, without anything of the package under test."""

from __future__ import annotations

import gzip
import hashlib
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


@dataclass(frozen=True)
class Published:
    """One image of a registry for plain HTTP, ``127.0.0.1:PORT/name:tag``."""

    reference: str
    password: str | None = None
    """As in the header `Authorization: Basic`, for a registry that wants one."""

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
        """The manifest or index under the tag, or the one of a digest."""
        name = digest or self.reference.rpartition(":")[2]
        found: dict[str, Any] = json.loads(self._get(f"manifests/{name}", INDEXES + MANIFESTS))
        return found

    @property
    def is_one_manifest(self) -> bool:
        return self.manifest()["mediaType"] in MANIFESTS

    def platforms(self) -> list[str]:
        """The platforms of an index, ``unknown/unknown`` for an attestation's."""
        return ["{os}/{architecture}".format(**each["platform"]) for each in self.manifest()["manifests"]]

    def config(self) -> dict[str, Any]:
        """The config of a single manifest."""
        found: dict[str, Any] = json.loads(self._get(f"blobs/{self.manifest()['config']['digest']}"))
        return found

    def layers_match(self) -> list[bool]:
        """For each layer of a single manifest, whether its content is what the config says."""
        blobs = [self._get(f"blobs/{layer['digest']}") for layer in self.manifest()["layers"]]
        digests = [f"sha256:{hashlib.sha256(gzip.decompress(blob)).hexdigest()}" for blob in blobs]
        diff_ids = self.config()["rootfs"]["diff_ids"]
        assert len(digests) == len(diff_ids)
        return [digest == diff_id for digest, diff_id in zip(digests, diff_ids, strict=True)]
