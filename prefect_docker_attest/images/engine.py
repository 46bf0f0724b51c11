"""An image in the Docker Engine, read from what ``docker save`` exports."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker import errors as docker_errors

from prefect_docker_attest import layers
from prefect_docker_attest.inspection import LONGEST_DOCUMENT, Descriptor, ImageError

if TYPE_CHECKING:
    from rich.progress import Progress

_TIMEOUT = 8  # seconds
_EXPORT_TIMEOUT = 600  # a graphdriver store's whole export is written in the engine before its first byte comes
_BLOBS = "blobs/sha256/"


class EngineImage:
    """One image of an engine: an `inspection.Source`.

    The export is an OCI image layout in a tar, since Docker 25 with both image stores, and its table of content
    comes last. So it is read once, as a stream: of layers the digests are kept. A graphdriver store has no
    manifests: the engine makes one up for the export.

    Args:
        reference: an image's name or id
        verify_layers: whether `diff_id` will be asked
        progress: shows how much has been read

    Raises:
        ImageError: no engine, no such image, or an export of another form
    """

    def __init__(self, reference: str, *, verify_layers: bool, progress: Progress) -> None:
        self.name = "Docker Engine"
        self._documents: dict[str, bytes] = {}
        self._diff_ids: dict[str, str | Exception] = {}
        try:
            client = docker.from_env(timeout=_TIMEOUT)
            self.name = f"engine {client.info().get('Name')}"
            image: dict[str, Any] = client.api.inspect_image(reference)  # type: ignore[no-untyped-call]
            client.api.timeout = _EXPORT_TIMEOUT
            export = layers.shown(client.api.get_image(image["Id"]), progress, self.name)
            with client.api, tarfile.open(fileobj=layers.Stream(export), mode="r|") as archive:
                for member in archive:
                    self._take(archive, member, verify_layers=verify_layers)
        except docker_errors.ImageNotFound as error:
            raise ImageError(f"{self.name} has no image {reference!r}: see `docker images`.") from error
        except (docker_errors.DockerException, requests.RequestException, tarfile.TarError) as error:
            raise ImageError(f"{self.name} does not give the image: {error}. Check it with `docker info`.") from error
        if "index.json" not in self._documents:
            raise ImageError(f"{self.name} exports no OCI image layout: Docker 25 or newer is needed.")

    def root(self) -> tuple[Descriptor, bytes]:
        root: Descriptor = json.loads(self._documents["index.json"])["manifests"][0]
        content = self.read(root)
        if content is None:
            raise ImageError(f"{self.name} lacks the manifest {root['digest']} of this image: pull it anew.")
        return root, content

    def read(self, descriptor: Descriptor) -> bytes | None:
        return self._documents.get(descriptor["digest"])

    def diff_id(self, layer: Descriptor) -> str:
        digest = layer["digest"]
        if digest in self._documents:  # a tar whose first file has a name like the start of a JSON object
            return layers.diff_id([self._documents[digest]], digest)
        found = self._diff_ids.get(digest, layers.LayerUnverifiable("it is not in this engine"))
        if isinstance(found, Exception):
            raise found
        return found

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, *, verify_layers: bool) -> None:
        file: Any = archive.extractfile(member)
        if file is None:
            return
        name = member.name.replace(_BLOBS, "sha256:")
        if file.peek(1).startswith(b"{") and member.size <= LONGEST_DOCUMENT:
            self._documents[name] = file.read()
        elif verify_layers and name != member.name:
            try:
                self._diff_ids[name] = layers.diff_id(iter(lambda: file.read(layers.PIECE), b""), name)
            except (layers.LayerDamaged, layers.LayerUnverifiable) as reason:
                self._diff_ids[name] = reason
