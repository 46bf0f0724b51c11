"""Inspects one image in a registry or an engine: its manifests, platforms, attestations, layers and programs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prefect_docker_attest.images import documents, manifest
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.layers import Content, LayerDamaged
from prefect_docker_attest.images.programs import UNCHECKED, check_programs
from prefect_docker_attest.images.result import Attestation, Image, Inspection, Layer, Programs, State, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prefect_docker_attest.images.documents import Config, Descriptor, Manifest

T = TypeVar("T")

_DEEPEST = 8  # nested indexes
_MOST_BYTES, _MOST_ENTRIES, _MOST_LAYERS = 8 << 20, 1_000, 10_000  # limits for all documents of one image
_SHORT = 19  # characters of a digest that messages show: its algorithm and 12 digits


class Source(Protocol):
    """A registry or an engine that has one image.

    Attributes:
        name: name of the registry or engine in messages
    """

    name: str

    def root(self) -> Descriptor:
        """Return the descriptor of the image's manifest or index."""

    def read(self, descriptor: Descriptor) -> bytes | None:
        """Return a manifest, an index or a config; `None` if the source does not have it."""

    def read_layers(self, descriptors: Sequence[Descriptor]) -> Mapping[str, Content | Exception]:
        """Read layers; return for each digest the result of `layers.read`, or the exception that it raised."""


@dataclass(frozen=True)
class _Documents:
    """The documents of the image for one platform. A document that the source does not have is `None`."""

    descriptor: Descriptor
    manifest: Manifest | None
    config: Config | None


def inspect_image(source: Source, reference: str, *, verify_layers: bool) -> Inspection:
    """Inspect one image.

    Args:
        source: the registry or engine that has the image
        reference: name of the image, as the user wrote it
        verify_layers: whether to read every layer and compare it with the image's config

    Raises:
        ImageError: the image cannot be read, or is not a container image
    """
    reader, root = _Reader(source), source.root()
    found: list[_Documents] = []
    attesting: list[tuple[Descriptor, tuple[str, ...]]] = []
    others: list[str] = []
    for descriptor, document in reader.leaves(root):
        predicate_types = document.predicate_types if document else ()
        if predicate_types or descriptor.is_attestation:
            attesting.append((descriptor, predicate_types))
        elif document.is_image if document else descriptor.is_manifest:
            described = document.config if document else None
            config = reader.read(described, documents.read_config, "its config") if described else None
            found.append(_Documents(descriptor, document, config))
        elif descriptor is root:
            kind = (document.kind if document else "") or root.media_type or "document of unknown type"
            raise ImageError(f"{reference} is not a container image: it is a {kind}.")
        else:
            others.append(descriptor.digest)
    if not found:
        raise ImageError(f"{reference} is an index that lists no container image.")
    contents = source.read_layers(_layers_to_read(found)) if verify_layers else {}
    images = tuple(_image(image, contents, source.name, verified=verify_layers) for image in found)
    platforms = {image.digest: image.platform for image in images}
    attestations = tuple(
        Attestation(
            descriptor.digest,
            descriptor.media_type,
            descriptor.attested_image,
            platforms.get(descriptor.attested_image or ""),
            predicate_types,
        )
        for descriptor, predicate_types in attesting
    )
    state = worst([image.state for image in images])
    return Inspection(reference, source.name, root.digest, root.media_type, images, attestations, tuple(others), state)


def republishing(inspection: Inspection, name: str, tag: str, *, prefer_index_flag: bool) -> str:
    """Return the shell command that publishes an image again under a tag, without its attestations.

    The result is one manifest, or an index of the manifests of several platforms.

    Args:
        inspection: inspection of an image in a registry
        name: name of the image, without tag and digest
        tag: tag that the command sets
        prefer_index_flag: whether ``docker buildx imagetools create`` has the flag ``--prefer-index``: buildx 0.13
            lacks it, 0.15 has it. Without the flag, buildx wraps a single manifest in an index, so the command uses
            the engine instead
    """
    images, target = [f"{name}@{image.digest}" for image in inspection.images], f"{name}:{tag}"
    if len(images) > 1 or prefer_index_flag:
        flag = ["--prefer-index=false"] if len(images) == 1 else []
        return shlex.join(["docker", "buildx", "imagetools", "create", *flag, f"--tag={target}", *images])
    steps = ["pull", *images], ["tag", *images, target], ["push", target]
    return " && ".join(shlex.join(["docker", *step]) for step in steps)


class _Reader:
    """Reads each document of an image once, up to a limit."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[tuple[str, Callable[..., Any]], Any] = {}
        self._bytes = self._entries = self._layers = 0

    def leaves(self, descriptor: Descriptor, depth: int = 0) -> Iterator[tuple[Descriptor, Manifest | None]]:
        """Yield each descriptor that is not an index, with its manifest.

        The manifest is `None` if the source does not have it, or if its type is unknown.
        """
        short = descriptor.digest[:_SHORT]
        if not descriptor.is_index:
            document = self.read(descriptor, documents.read_manifest, f"manifest {short}")
            self._layers += len(document.layers) if document else 0
            if self._layers > _MOST_LAYERS:
                raise ImageError(f"The image's manifests list more than {_MOST_LAYERS:,} layers.")
            yield descriptor, document
            return
        if depth == _DEEPEST:
            raise ImageError(f"The image has more than {_DEEPEST} nested indexes: index {short} is not read.")
        for entry in self.read(descriptor, documents.read_index, f"index {short}") or ():
            self._entries += 1
            if self._entries > _MOST_ENTRIES:
                raise ImageError(f"The image's indexes list more than {_MOST_ENTRIES:,} manifests.")
            yield from self.leaves(entry, depth + 1)

    def read(self, descriptor: Descriptor, parse: Callable[[bytes, str], T], name: str) -> T | None:
        """Return a document; `None` if the source does not have it, or if its type is unknown."""
        key = descriptor.digest, parse
        if key not in self._known:
            known = descriptor.is_known or descriptor.media_type in manifest.CONFIG_MEDIA_TYPES
            content = self._source.read(descriptor) if known else None
            self._bytes += len(content or b"")
            if self._bytes > _MOST_BYTES:
                raise ImageError(f"The image's manifests and configs have more than {_MOST_BYTES:,} bytes in total.")
            self._known[key] = parse(content, name) if content is not None else None
        found: T | None = self._known[key]
        return found


def _layers_to_read(found: Sequence[_Documents]) -> list[Descriptor]:
    """Return the layers of all images. A layer that several images share is listed once."""
    layers = [layer for image in found if image.manifest and image.config for layer in image.manifest.layers]
    return list({layer.digest: layer for layer in layers if not layer.is_encrypted}.values())


def _image(found: _Documents, contents: Mapping[str, Content | Exception], source: str, *, verified: bool) -> Image:
    descriptor, document, config = found.descriptor, found.manifest, found.config
    described = document.layers if document else ()
    diff_ids = config.diff_ids if config else ()
    layers = []
    for layer, expected in zip(described, [*diff_ids, *[None] * len(described)], strict=False):
        state, detail = _verified(layer, expected, contents.get(layer.digest)) if verified and config else _UNCHECKED
        layers.append(Layer(layer.digest, layer.media_type, layer.size, expected, state, detail))
    platform = descriptor.platform or (config.platform if config else None)
    programs = _programs(platform, config, [contents.get(layer.digest) for layer in described]) if verified else None
    state = worst([layer.state for layer in layers])
    detail = "; ".join(f"layer {number} {layer.detail}" for number, layer in enumerate(layers, 1) if layer.detail)
    if config is None:
        state, detail = "unverifiable", f"{source} does not have this image"
    elif len(described) != len(diff_ids):
        state = "corrupt"
        detail = f"the manifest lists {len(described)} layers, but the config lists {len(diff_ids)} diff_ids"
    elif not described and verified:
        state = "sound"
    blobs = [blob for blob in (document.config if document else None, *described) if blob]
    return Image(
        descriptor.digest,
        descriptor.media_type,
        platform,
        sum(blob.size for blob in blobs),
        tuple(layers),
        state,
        detail,
        _same_platform(descriptor, config, programs or UNCHECKED),
    )


def _programs(platform: str | None, config: Config | None, contents: Sequence[Content | Exception | None]) -> Programs:
    files = [content.files for content in contents if isinstance(content, Content)]
    if config is None or len(files) < len(contents):
        return Programs("unknown", {}, (), "not all of its layers could be read")
    return check_programs(platform, config, files)


def _same_platform(descriptor: Descriptor, config: Config | None, programs: Programs) -> Programs:
    """Return the programs; their state is ``wrong`` if index and config name different platforms."""
    named = [descriptor.platform, config.platform if config else None]
    words = [platform.split("/")[:2] for platform in named if platform]
    if len(words) < len(named) or words[0] == words[1]:
        return programs
    reason = f"the index names the platform {named[0]}, but the config names {named[1]}"
    return replace(programs, state="wrong", detail="; ".join(filter(None, [reason, programs.detail])))


_UNCHECKED: tuple[State, str] = ("unchecked", "")


def _verified(layer: Descriptor, expected: str | None, found: Content | Exception | None) -> tuple[State, str]:
    if layer.is_encrypted:
        return "unverifiable", "is encrypted"
    short = layer.digest[:_SHORT]
    if isinstance(found, LayerDamaged):
        return "corrupt", f"({short}) is damaged: {found}"
    if not isinstance(found, Content):
        return "unverifiable", f"({short}) cannot be verified: {found}"
    if found.diff_id == expected:
        return "sound", ""
    listed = f"the config lists {expected[:_SHORT]}" if expected else "the config lists no diff_id for it"
    return "corrupt", f"has the diff_id {found.diff_id[:_SHORT]}, but {listed}"
