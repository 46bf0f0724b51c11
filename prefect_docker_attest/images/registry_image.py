"""An image in a registry, as the inspection reads it: documents one by one, layers in several threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_docker_attest.images import documents, programs
from prefect_docker_attest.images.documents import Descriptor, digest_of
from prefect_docker_attest.images.layer_files import Budget
from prefect_docker_attest.images.layers import LayerReading, read_layer
from prefect_docker_attest.images.registry import OR_ENGINE, Repository
from prefect_docker_attest.images.registry_answers import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect_docker_attest.images.layers import Meter
    from prefect_docker_attest.images.reference import Reference
    from prefect_docker_attest.workers import Workers


class RegistryImage(Repository):
    """One image in a registry: an `inspection.Source`, and a context manager.

    Args:
        reference: name of the image
        workers: threads that read layers
        meter: shows how much of each layer has been read
        tip: see `Repository`
        retries: see `Repository`
    """

    def __init__(
        self, reference: Reference, workers: Workers, meter: Meter, *, tip: str = OR_ENGINE, retries: bool = False
    ) -> None:
        super().__init__(reference, tip=tip, retries=retries)
        self._workers = workers
        self._meter = meter
        self._root = "", b""

    def root(self) -> Descriptor:
        media_type, content = self.document(
            f"manifests/{self._reference.digest or self._reference.tag}", self._reference.digest
        )
        known = documents.media_type(content, media_type)
        served_as = "" if known == media_type else media_type or "nothing"
        root = Descriptor(known, digest_of(content), len(content), served_as=served_as)
        self._root = root.digest, content
        return root

    def read(self, descriptor: Descriptor) -> bytes:
        digest, content = self._root
        if descriptor.digest == digest:
            return content
        kind = "manifests" if descriptor.is_known else "blobs"
        return self.document(f"{kind}/{descriptor.digest}", descriptor.digest)[1]

    def read_layers(self, descriptors: Sequence[Descriptor]) -> dict[str, LayerReading]:
        # The largest layer starts first; the other threads read smaller layers at the same time.
        ordered = sorted(descriptors, key=lambda layer: layer.size, reverse=True)
        budget = Budget(programs.MEMORY)
        futures = {layer.digest: self._workers.submit(self._read_layer, layer, budget) for layer in ordered}
        return {digest: future.result() for digest, future in futures.items()}

    def _read_layer(self, layer: Descriptor, budget: Budget) -> LayerReading:
        try:
            with self._send(f"blobs/{layer.digest}") as response, self._meter(layer.digest[:19], layer.size) as advance:
                return read_layer(response.pieces(), layer.digest, layer.size, budget, advance)
        except NotFound:
            if layer.urls:  # a base layer of Windows, which only Microsoft distributes
                return LayerReading("unverifiable", detail="it is not in the registry, but at another address")
            return LayerReading("corrupt", detail="the registry does not have it")
