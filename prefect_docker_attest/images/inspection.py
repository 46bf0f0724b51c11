"""What an image is, wherever it lies: manifest or index, platforms, attestations, and whether its layers are sound."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prefect_docker_attest import manifest
from prefect_docker_attest.layers import LayerDamaged, LayerUnverifiable

if TYPE_CHECKING:
    from collections.abc import Iterator

Descriptor = dict[str, Any]
"""A content descriptor of the OCI image specification: ``mediaType``, ``digest``, ``size``, ..."""

State = Literal["corrupt", "unverifiable", "unchecked", "sound"]
_WORST_FIRST: tuple[State, ...] = ("corrupt", "unverifiable", "unchecked", "sound")

LONGEST_DOCUMENT = 8 << 20
"""Bytes of a manifest or config that are read; registries take 4 MiB."""


class ImageError(Exception):
    """An image that cannot be inspected: what failed, what was seen, and what to do next."""


class Source(Protocol):
    """A place that has one image; `name` is the place, for people."""

    name: str

    def root(self) -> tuple[Descriptor, bytes]:
        """What the image's name stands for, and its content."""

    def read(self, descriptor: Descriptor) -> bytes | None:
        """A manifest, an index or a config; ``None`` where this place does not have it."""

    def diff_id(self, layer: Descriptor) -> str:
        """What `layers.diff_id` says of a layer, or raises."""


@dataclass(frozen=True)
class Layer:
    """A layer; `diff_id` is what the image's config says of it, `detail` why its state is not sound."""

    digest: str
    media_type: str
    size: int
    diff_id: str | None
    state: State
    detail: str


@dataclass(frozen=True)
class Image:
    """One platform's image; `size` is that of config and layers as stored, `detail` says why its state is not sound."""

    digest: str
    media_type: str
    platform: str | None
    size: int
    layers: tuple[Layer, ...]
    state: State
    detail: str


@dataclass(frozen=True)
class Attestation:
    """An attestation manifest, with the image that it speaks of; no predicate types where its content is not there."""

    digest: str
    media_type: str
    image: str | None
    platform: str | None
    predicate_types: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All that was found; `others` are an index's entries that are neither image nor attestation."""

    reference: str
    source: str
    digest: str
    media_type: str
    images: tuple[Image, ...]
    attestations: tuple[Attestation, ...]
    others: tuple[str, ...]
    state: State


def inspect_image(source: Source, reference: str, *, verify_layers: bool) -> Inspection:
    """Inspect one image.

    Args:
        source: where the image is
        reference: the image's name, as its user wrote it
        verify_layers: read every layer, and compare it with what the config says of it

    Raises:
        ImageError: it cannot be read, or is no image
    """
    try:
        return _inspected(source, reference, verify_layers=verify_layers)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ImageError(f"{reference} is no image: its manifests and configs cannot be read ({reason}).") from error


def republishing(inspection: Inspection, name: str, tag: str, *, prefer_index_flag: bool) -> str:
    """The shell command that gives a tag to an image without its attestations: a plain manifest, or an index of them.

    Args:
        inspection: of an image in a registry
        name: the image's name, without tag and digest
        tag: the tag
        prefer_index_flag: whether ``imagetools create`` has it: buildx 0.13 lacks it, 0.15 has it. Without it a single
            manifest is wrapped into an index again, and the engine does it in place of buildx
    """
    images, target = [f"{name}@{image.digest}" for image in inspection.images], f"{name}:{tag}"
    if len(images) > 1 or prefer_index_flag:
        flag = ["--prefer-index=false"] if len(images) == 1 else []
        return shlex.join(["docker", "buildx", "imagetools", "create", *flag, f"--tag={target}", *images])
    steps = ["pull", *images], ["tag", *images, target], ["push", target]
    return " && ".join(shlex.join(["docker", *step]) for step in steps)


def _inspected(source: Source, reference: str, *, verify_layers: bool) -> Inspection:
    root, content = source.root()
    images: list[Image] = []
    attesting: list[tuple[Descriptor, tuple[str, ...]]] = []
    others: list[str] = []
    for descriptor, document in _leaves(source, root, content):
        config = document.get("config") or {}
        predicate_types = manifest.predicate_types(document)
        if predicate_types or manifest.attestations({"manifests": [descriptor]}):
            attesting.append((descriptor, predicate_types))
        elif config.get("mediaType") in manifest.CONFIG_MEDIA_TYPES or (
            not document and descriptor["mediaType"] in manifest.MANIFEST_KINDS
        ):
            images.append(_image(source, descriptor, document, verify_layers=verify_layers))
        elif descriptor is root:
            kind = document.get("artifactType") or config.get("mediaType") or root["mediaType"]
            raise ImageError(f"{reference} is not a container image: it is a {kind}.")
        else:
            others.append(descriptor["digest"])
    platforms = {image.digest: image.platform for image in images}
    attestations = tuple(
        Attestation(one["digest"], one["mediaType"], image, platforms.get(image or ""), predicate_types)
        for one, predicate_types in attesting
        for image in [manifest.attested_image(one)]
    )
    state = _worst([image.state for image in images])
    return Inspection(
        reference, source.name, root["digest"], root["mediaType"], tuple(images), attestations, tuple(others), state
    )


def _leaves(
    source: Source, descriptor: Descriptor, content: bytes | None
) -> Iterator[tuple[Descriptor, dict[str, Any]]]:
    """What is no index, with its content, which is empty for what is of unknown type or not there."""
    document: dict[str, Any] = json.loads(content or b"{}")
    if not manifest.is_index(descriptor["mediaType"]):
        yield descriptor, document
        return
    # An index can only name what was there before it: no index is within itself.
    for entry in document.get("manifests") or ():
        known = entry["mediaType"] in {**manifest.INDEX_KINDS, **manifest.MANIFEST_KINDS}
        yield from _leaves(source, entry, source.read(entry) if known else None)


def _image(source: Source, descriptor: Descriptor, document: dict[str, Any], *, verify_layers: bool) -> Image:
    content = source.read(document["config"]) if document else None
    config = json.loads(content or b"{}")
    described = document.get("layers") or []
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    layers = []
    for layer, expected in zip(described, [*diff_ids, *[None] * len(described)], strict=False):
        state, detail = _verified(source, layer, expected) if verify_layers and content else ("unchecked", "")
        layers.append(Layer(layer["digest"], layer["mediaType"], layer["size"], expected, state, detail))
    state = _worst([layer.state for layer in layers])
    detail = "; ".join(f"layer {number} {layer.detail}" for number, layer in enumerate(layers, 1) if layer.detail)
    if content is None:
        state, detail = "unverifiable", "is not here"
    elif len(described) != len(diff_ids):
        state, detail = "corrupt", f"there are {len(described)} layers, and diff_ids of {len(diff_ids)} in the config"
    return Image(
        descriptor["digest"],
        descriptor["mediaType"],
        manifest.platform_name(descriptor.get("platform")) or manifest.platform_name(config),
        sum(blob["size"] for blob in (document.get("config"), *described) if blob),
        tuple(layers),
        state,
        detail,
    )


def _verified(source: Source, layer: Descriptor, expected: str | None) -> tuple[State, str]:
    if layer["mediaType"].endswith("+encrypted"):
        return "unverifiable", "is encrypted"
    try:
        found = source.diff_id(layer)
    except LayerDamaged as damage:
        return "corrupt", f"({layer['digest'][:19]}) is damaged: {damage}"
    except LayerUnverifiable as reason:
        return "unverifiable", f"({layer['digest'][:19]}) cannot be verified: {reason}"
    if found == expected:
        return "sound", ""
    return "corrupt", f"holds {found[:19]}, and the config says {(expected or 'nothing')[:19]}"


def _worst(states: list[State]) -> State:
    return min(states, key=_WORST_FIRST.index, default="unchecked")
