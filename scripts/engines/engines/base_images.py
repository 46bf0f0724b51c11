"""Pushes base images for two platforms to a registry over HTTP, without an engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.machine import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def push_busybox(registry: str, packages: Path) -> str:
    """Push `library/busybox:latest`, an index of images for linux/amd64 and linux/arm64.

    Each image has two layers. Both differ between the architectures, so that each layer shows whether a builder mixed
    up the platforms.

    Args:
        registry: host and port of a registry that uses plain HTTP.
        packages: folder with an unpacked `busybox-static` in `amd64` and one in `arm64`.

    Returns:
        The digest of the index.

    Raises:
        CommandFailed: busybox does not run.
        OSError: the registry does not answer, or answers with an error (`urllib.error.HTTPError`).
    """
    programs = {architecture: packages / architecture / "usr/bin/busybox" for architecture in ("amd64", "arm64")}
    applets = run([str(programs["amd64"]), "--list"]).stdout.split()
    images = [
        base_image(architecture, programs_layer(program.read_bytes(), applets))
        for architecture, program in programs.items()
    ]
    return push_index(registry, "library/busybox", "latest", images)


@dataclass(frozen=True)
class BaseImage:
    """The base image for one platform."""

    architecture: str
    layers: Sequence[tuple[bytes, str]]
    """For each layer: its compressed tar, and the digest of the uncompressed tar."""
    config: Mapping[str, Any]
    """The image's configuration, such as `Env` and `Cmd`."""


def base_image(architecture: str, programs: bytes) -> BaseImage:
    """Make a base image of two layers: this tar of programs, and a tar of system files."""
    # mtime=0: the same content makes the same blob in every run.
    layers = [(gzip.compress(layer, 6, mtime=0), _digest(layer)) for layer in (programs, _system_layer(architecture))]
    return BaseImage(architecture, layers, {"Cmd": ["sh"]})


def push_index(registry: str, repository: str, tag: str, images: Sequence[BaseImage]) -> str:
    """Push an index of these images for Linux, and return its digest.

    Raises:
        OSError: the registry does not answer, or answers with an error (`urllib.error.HTTPError`).
    """
    address = f"http://{registry}/v2/{repository}"
    manifests = [{**_push_image(address, image), "platform": _platform(image)} for image in images]
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
    return str(_push_manifest(address, index, tag)["digest"])


def push_image(registry: str, repository: str, tag: str, image: BaseImage) -> None:
    """Push one image, not in an index.

    Raises:
        OSError: the registry does not answer, or answers with an error (`urllib.error.HTTPError`).
    """
    _push_image(f"http://{registry}/v2/{repository}", image, tag)


def docker_archive(name: str, image: BaseImage) -> bytes:
    """Return a tar from which `docker load` loads the image under this name."""
    config = _json(_config(image))
    files = {"config.json": config, **{f"{number}.tar": layer for number, (layer, _) in enumerate(image.layers)}}
    described = {
        "Config": "config.json",
        "RepoTags": [name],
        "Layers": [file for file in files if file != "config.json"],
    }
    files["manifest.json"] = json.dumps([described]).encode()
    return _tar(*[(_entry(file), content) for file, content in files.items()])


def _platform(image: BaseImage) -> dict[str, str]:
    platform = {"architecture": image.architecture, "os": "linux"}
    return {**platform, "variant": "v8"} if image.architecture == "arm64" else platform


def _config(image: BaseImage) -> dict[str, Any]:
    return {
        **_platform(image),
        "config": {**image.config, "Env": [_PATH, *image.config.get("Env", ())]},
        "rootfs": {"type": "layers", "diff_ids": [digest for _, digest in image.layers]},
        "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(image.layers)],
    }


def programs_layer(program: bytes, applets: Sequence[str]) -> bytes:
    """Make the tar of a layer with busybox and a link for each of its commands."""
    names = sorted(set(applets) - {"busybox"})
    return _tar(
        _folder("bin"),
        (_entry("bin/busybox", mode=0o755), program),
        *[(_entry(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox"), b"") for name in names],
    )


def _system_layer(architecture: str) -> bytes:
    """Make the layer with the system files that programs need."""
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": "root:x:0:\n",
        "etc/os-release": f'ID=busybox\nPRETTY_NAME="busybox for {architecture}"\n',
    }
    return _tar(
        _folder("etc"),
        *[(_entry(name), text.encode()) for name, text in files.items()],
        _folder("root", 0o700),
        _folder("tmp", 0o1777),
    )


def _entry(name: str, *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Describe a member of a tar. By TarInfo's defaults, root owns it and its time is in 1970."""
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.linkname = mode, kind, link
    return entry


def _folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return _entry(name, mode=mode, kind=tarfile.DIRTYPE), b""


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, content in members:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _push_blob(repository: str, media_type: str, content: bytes) -> dict[str, Any]:
    """Upload a blob in one piece and return its descriptor."""
    descriptor = _descriptor(media_type, content)
    location = _request("POST", f"{repository}/blobs/uploads/")
    # The registry's address for the upload already contains a query.
    _request("PUT", f"{location}&digest={descriptor['digest']}", content)
    return descriptor


def _push_image(address: str, image: BaseImage, tag: str | None = None) -> dict[str, Any]:
    """Upload an image under a tag, or under its digest if there is no tag, and return its descriptor."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _push_blob(address, _CONFIG, _json(_config(image))),
        "layers": [_push_blob(address, _LAYER, layer) for layer, _ in image.layers],
    }
    return _push_manifest(address, manifest, tag)


def _push_manifest(repository: str, manifest: Mapping[str, Any], tag: str | None = None) -> dict[str, Any]:
    """Upload a manifest under a tag, or under its digest if there is no tag, and return its descriptor."""
    content = _json(manifest)
    descriptor = _descriptor(manifest["mediaType"], content)
    reference = tag or descriptor["digest"]
    _request("PUT", f"{repository}/manifests/{reference}", content, manifest["mediaType"])
    return descriptor


def _request(method: str, url: str, body: bytes = b"", media_type: str = "application/octet-stream") -> str:
    """Send a request to the registry, and return the header Location of the response."""
    request = urllib.request.Request(url, body, {"Content-Type": media_type}, method=method)
    # No proxies: a proxy cannot reach a loopback address of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return str(answer.headers.get("Location", ""))
