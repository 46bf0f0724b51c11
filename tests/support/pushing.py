"""Starts registries with plain HTTP, and pushes manifests and blobs of any kind to them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx

from engines.machine import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_client = httpx.Client(trust_env=False, timeout=60)  # no proxies: they cannot reach a loopback address here


@contextlib.contextmanager
def started_registry(program: str, folder: Path, **configuration: Any) -> Iterator[str]:
    """Start a registry with this configuration, and give its address."""
    address = f"127.0.0.1:{free_port()}"
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}, "delete": {"enabled": True}}
    general = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": {"addr": address}}
    (folder / "registry.yml").write_text(json.dumps({**general, **configuration}))  # JSON is a subset of YAML
    process = subprocess.Popen([program, "serve", str(folder / "registry.yml")], stderr=subprocess.DEVNULL)
    try:
        # It retries, and waits longer after each attempt.
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), trust_env=False, timeout=60) as client:
            client.get(f"http://{address}/v2/")
        yield address
    finally:
        process.terminate()
        process.wait()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def push_blob(repository: str, content: bytes) -> bytes:
    location = _client.post(f"{repository}/blobs/uploads/").raise_for_status().headers["location"]
    _client.put(f"{location}&digest={digest(content)}", content=content).raise_for_status()
    return content


def delete_blob(repository: str, blob: str) -> None:
    _client.delete(f"{repository}/blobs/{blob}").raise_for_status()


def push_manifest(repository: str, document: dict[str, Any], tag: str | None = None) -> dict[str, Any]:
    content = json.dumps(document).encode()
    headers = {"Content-Type": document["mediaType"]}
    url = f"{repository}/manifests/{tag or digest(content)}"
    _client.put(url, content=content, headers=headers).raise_for_status()
    return descriptor(document["mediaType"], content)


def push_image(
    repository: str,
    blob: bytes,
    *,
    media_type: str = MANIFEST,
    layer: Mapping[str, Any] = MappingProxyType({}),
    tag: str | None = None,
    headers: dict[str, str] | None = None,
    config: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Push an image with one layer. If the layer can be decompressed, its diff_id in the config is right.

    Args:
        repository: address of the repository in the registry's API
        blob: the layer
        media_type: media type of the manifest
        layer: members to add to the layer's descriptor
        tag: tag of the image; None for an image without a tag
        headers: headers with credentials for the registry
        config: members to add to the image's config, which has no platform by default
    """
    _client.headers = httpx.Headers(headers)
    try:
        diff_id = digest(gzip.decompress(blob))
    except (OSError, EOFError, zlib.error):
        diff_id = digest(blob)
    content = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(CONFIG, push_blob(repository, content)),
        "layers": [{**descriptor(LAYER, push_blob(repository, blob)), **layer}],
    }
    return push_manifest(repository, document, tag)


def tar_layer(name: str, size: int = 0, compresslevel: int = 6) -> bytes:
    """Return a layer with one file of zeros, as a gzip file. With level 0 it is not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=compresslevel) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(bytes(size)))
    return buffer.getvalue()
