"""Inspects an image in the Docker Engine: reads the engine's list of manifests, or the image that it exports."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import quote

import requests
from docker import errors as docker_errors

from prefect_docker_attest.images import documents, engine_api, engine_listing, http, programs, tar_stream
from prefect_docker_attest.images.documents import LONGEST_DOCUMENT, Descriptor, ImageError
from prefect_docker_attest.images.inspection import inspect_image
from prefect_docker_attest.images.layer_files import Budget
from prefect_docker_attest.images.layers import LayerReading, read_layer
from prefect_docker_attest.images.stream import PieceReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from prefect_docker_attest.images.layers import Meter
    from prefect_docker_attest.images.result import Inspection
    from prefect_docker_attest.images.tar_stream import Member

_TIMEOUT = 8  # seconds
# Seconds. With the graphdriver store, the engine writes the whole export to its disk before it sends the first byte.
_EXPORT_TIMEOUT = 600
_MOST_DOCUMENTS = 32 << 20  # total size of the documents of one image, in bytes
# Podman's answer to Docker's request is not an OCI image layout.
_EXPORT: tuple[str, Mapping[str, str]] = ("images/{}/get", {})
_PODMAN_EXPORT = ("v4.0.0/libpod/images/{}/get", {"format": "oci-archive"})
_BLOBS = "blobs/sha256/"


def inspect_in_engine(reference: str, meter: Meter, *, verify_layers: bool) -> Inspection:
    """Inspect an image in the engine that docker-py's ``from_env`` finds.

    Args:
        reference: name or id of the image
        meter: shows how much has been read
        verify_layers: whether to read every layer

    Raises:
        ImageError: the engine does not answer, does not have the image, or exports an image that cannot be read
    """
    name = "Docker Engine"
    try:
        with engine_api.client(_TIMEOUT) as api:
            info = engine_api.get(api, "info", _TIMEOUT)
            name = f"engine {info.get('Name')}"
            # Engines with the containerd image store list manifests since API 1.48 (Docker 28).
            path = f"images/{quote(reference, safe='/:')}/json"
            answer = engine_api.get(api, path, _TIMEOUT, {"manifests": "1"})
            if answer.get("Manifests") and not verify_layers:
                return engine_listing.listed_inspection(answer, reference, name)
            api.timeout = _EXPORT_TIMEOUT
            path, parameters = _PODMAN_EXPORT if "BuildahVersion" in info else _EXPORT
            pieces = engine_api.stream(api, path.format(quote(str(answer.get("Id")))), parameters)
            image = EngineImage(pieces, name, meter, verify_layers=verify_layers)
    except requests.HTTPError as error:
        if error.response is not None and error.response.status_code == requests.codes.not_found:
            raise ImageError(f"{name} has no image {reference!r}.", "`docker images` lists its images.") from error
        retryable = error.response is not None and http.is_retryable(error.response.status_code)
        raise _no_answer(name, error, retryable=retryable) from error
    except (docker_errors.DockerException, requests.RequestException, engine_api.InvalidResponseError) as error:
        raise _no_answer(name, error, retryable=True) from error
    return inspect_image(image, reference, verify_layers=verify_layers)


def _no_answer(name: str, error: Exception, *, retryable: bool) -> ImageError:
    return ImageError(
        f"{name} does not provide the image: {error}.", "Check it with `docker info`.", retryable=retryable
    )


class EngineImage:
    """One image of an engine: an `inspection.Source`.

    Since Docker 25, both image stores export an OCI image layout in a tar file. Its index is the last member, so
    this class reads the export once, as a stream, and keeps only the digests and programs of the layers. The
    graphdriver store has no manifests, so the engine creates one for the export.

    Args:
        export: the export, in pieces
        name: name of the engine in messages
        meter: shows how much has been read
        verify_layers: whether `read_layers` will be called

    Raises:
        requests.RequestException: the engine does not export the image
        ImageError: the export is incomplete, or is not an OCI image layout
    """

    def __init__(
        self, export: AbstractContextManager[Iterable[bytes]], name: str, meter: Meter, *, verify_layers: bool
    ) -> None:
        self.name = name
        self._documents: dict[str, bytes] = {}
        self._documents_size = 0
        self._budget = Budget(programs.MEMORY)
        self._readings: dict[str, LayerReading] = {}
        with export as pieces, meter(name, None) as advance:
            tar = PieceReader(_advancing(pieces, advance))
            try:
                for member in tar_stream.members(tar):
                    self._take(tar, member, verify_layers=verify_layers)
            except tar_stream.InvalidTarError:
                raise ImageError(f"The export of the image from {name} is incomplete or is not a tar file.") from None
        if "index.json" not in self._documents:
            raise ImageError(f"{name} does not export an OCI image layout.", "Upgrade it to Docker 25 or newer.")

    def root(self) -> Descriptor:
        entries = documents.read_index(self._documents["index.json"], f"index.json of {self.name}").entries
        if not entries:
            raise ImageError(f"{self.name} exports no image.")
        root = entries[0]
        if self.read(root) is None:
            raise ImageError(f"{self.name} lacks the manifest {root.digest} of this image.", "Pull the image again.")
        return root

    def read(self, descriptor: Descriptor) -> bytes | None:
        return self._documents.get(descriptor.digest)

    def read_layers(self, descriptors: Sequence[Descriptor]) -> dict[str, LayerReading]:
        return {layer.digest: self._reading(layer.digest) for layer in descriptors}

    def _reading(self, digest: str) -> LayerReading:
        content = self._documents.get(digest)
        if content is not None:  # a tar file whose first member has a name that begins with "{", like a JSON object
            return read_layer([content], digest, len(content), self._budget)
        return self._readings.get(digest, LayerReading("unverifiable", detail="the engine does not have it"))

    def _take(self, export: PieceReader, member: Member, *, verify_layers: bool) -> None:
        if member.kind == tar_stream.FOLDER or member.link:
            return
        name = member.path.replace(_BLOBS, "sha256:")
        start = member.read(export, 1)
        if start == b"{" and member.size <= LONGEST_DOCUMENT and self._documents_size <= _MOST_DOCUMENTS:
            self._documents_size += member.size
            self._documents[name] = start + member.read(export, member.size)
        elif verify_layers and name != member.path:
            pieces = chain([start], member.pieces(export))
            self._readings[name] = read_layer(pieces, name, member.size, self._budget)


def _advancing(pieces: Iterable[bytes], advance: Callable[[int], object]) -> Iterator[bytes]:
    for piece in pieces:
        advance(len(piece))
        yield piece
