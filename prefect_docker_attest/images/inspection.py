"""Inspects one image in a registry or an engine: its manifests, platforms, attestations, layers and programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from prefect_docker_attest.images import documents, manifest
from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.programs import UNCHECKED, check_programs
from prefect_docker_attest.images.result import Image, Inspection, Layer, Programs, State, worst
from prefect_docker_attest.layer_compression import named_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prefect_docker_attest.images.documents import Config, Descriptor, Index, Manifest
    from prefect_docker_attest.images.layers import LayerReading
    from prefect_docker_attest.platforms import Platform

T = TypeVar("T", bound="Index | Manifest | Config")


class Problem(NamedTuple):
    """What is wrong with a document or a layer.

    Attributes:
        state: ``corrupt`` or ``unverifiable``
        detail: a sentence without a subject for layers, a whole one for documents
        decides: whether the document has several meanings, so that nothing else can be judged
    """

    state: State
    detail: str
    decides: bool = False


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

    def read_layers(self, descriptors: Sequence[Descriptor]) -> Mapping[str, LayerReading]:
        """Read layers, and return what was seen of them by their digests."""


@dataclass(frozen=True)
class _Documents:
    """The documents of the image for one platform. Those that the source does not have are empty.

    Attributes:
        problems: what is wrong with the documents, and with the indexes that list them
        platform: platform that the index or the config names
    """

    descriptor: Descriptor
    problems: Sequence[Problem]
    manifest: Manifest = documents.NO_MANIFEST
    config: Config | None = None

    @property
    def platform(self) -> Platform | None:
        return self.descriptor.platform or (self.config.platform if self.config else None)


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
    images: list[_Documents] = []
    attesting: list[tuple[Descriptor, str | None, tuple[str, ...]]] = []
    others: list[str] = []
    for descriptor, document, problems in reader.leaves(root, []):
        kind = kind_of(descriptor, document)
        if kind == "attestation":
            attesting.append((descriptor, descriptor.attested_image, document.predicate_types if document else ()))
        elif kind == "image":
            images.append(reader.image(descriptor, document, problems))
        elif descriptor is root:
            raise ImageError(f"{reference} is not a container image: it is a {kind}.")
        else:
            others.append(descriptor.digest)
    readings = source.read_layers(_layers_to_read(images)) if verify_layers else None
    results = [_image(image, readings, source.name) for image in images]
    return Inspection.of(reference, source.name, root, images=results, attesting=attesting, others=others)


def kind_of(descriptor: Descriptor, document: Manifest | None) -> str:
    """Return ``attestation``, ``image``, or the type of something else.

    Args:
        descriptor: descriptor of the document
        document: the document, if it is a manifest; `None` if it was not read
    """
    if descriptor.is_attestation or (document and document.predicate_types):
        return "attestation"
    if document.is_image if document else descriptor.is_manifest:
        return "image"
    return (document.kind if document else "") or descriptor.media_type or "document of unknown type"


class _Reader:
    """Reads each document of an image once, up to a limit."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[tuple[str, Callable[..., Any]], Any] = {}
        self._bytes = self._entries = self._layers = 0

    def leaves(
        self, descriptor: Descriptor, above: list[Problem], depth: int = 0
    ) -> Iterator[tuple[Descriptor, Manifest | None, list[Problem]]]:
        """Yield each descriptor that is not an index, with its manifest and the problems of all documents so far.

        The manifest is `None` if the source does not have it, or if its type is unknown.
        """
        short = descriptor.digest[:_SHORT]
        if not descriptor.is_index:
            document, problems = self.read(descriptor, documents.read_manifest, f"manifest {short}")
            self._layers += len(document.layers) if document else 0
            if self._layers > _MOST_LAYERS:
                raise ImageError(f"The image's manifests list more than {_MOST_LAYERS:,} layers.")
            yield descriptor, document, above + problems
            return
        if depth == _DEEPEST:
            raise ImageError(f"The image has more than {_DEEPEST} nested indexes: index {short} is not read.")
        index, problems = self.read(descriptor, documents.read_index, f"index {short}")
        for entry in index.entries if index else ():
            self._entries += 1
            if self._entries > _MOST_ENTRIES:
                raise ImageError(f"The image's indexes list more than {_MOST_ENTRIES:,} manifests.")
            yield from self.leaves(entry, above + problems, depth + 1)

    def image(self, descriptor: Descriptor, document: Manifest | None, problems: Sequence[Problem]) -> _Documents:
        """Return the documents of an image."""
        if document is None or document.config is None:
            return _Documents(descriptor, problems)
        config, more = self.read(document.config, documents.read_config, "its config")
        return _Documents(descriptor, [*problems, *more], document, config)

    def read(
        self, descriptor: Descriptor, parse: Callable[[bytes, str], T], name: str
    ) -> tuple[T | None, list[Problem]]:
        """Return a document, and what is wrong with it; `None` if the source lacks it, or if its type is unknown."""
        key = descriptor.digest, parse
        if key not in self._known:
            known = descriptor.is_known or descriptor.media_type in manifest.CONFIG_MEDIA_TYPES
            content = self._source.read(descriptor) if known else None
            self._bytes += len(content or b"")
            if self._bytes > _MOST_BYTES:
                raise ImageError(f"The image's manifests and configs have more than {_MOST_BYTES:,} bytes in total.")
            self._known[key] = (parse(content, name), len(content)) if content is not None else (None, descriptor.size)
        document, size = self._known[key]
        return document, list(_problems(descriptor, document, size, name))


def _problems(
    descriptor: Descriptor, document: Index | Manifest | Config | None, size: int, name: str
) -> Iterator[Problem]:
    """Yield what is wrong with a document or with its descriptor."""
    if descriptor.size != size:
        yield Problem("corrupt", f"{name} has {size:,} bytes, but its descriptor says {descriptor.size:,}")
    for pair in document.twice if document else ():
        detail = f"{name} has {pair}, which are equal for engines, but not for other programs"
        yield Problem("unverifiable", detail, decides=True)
    if descriptor.urls:
        yield Problem("unverifiable", f"{name} is also listed at other addresses, which are not read")
    if descriptor.matches_nothing:
        yield Problem("unverifiable", f"the index lists {name} for a platform without an architecture")
    if descriptor.served_as:
        yield Problem("unverifiable", f"the registry calls {name} {descriptor.served_as!r}, which engines do not know")
    if isinstance(document, documents.Config) and not document.layered:
        yield Problem(
            "unverifiable", f"{name} has another type of root file system than 'layers', which newer engines refuse"
        )


def _layers_to_read(images: Sequence[_Documents]) -> list[Descriptor]:
    """Return the layers of all images. A layer that several images share is listed once."""
    layers = [layer for image in images if image.config for layer in image.manifest.layers]
    return list({layer.digest: layer for layer in layers if not layer.is_encrypted}.values())


def _image(image: _Documents, readings: Mapping[str, LayerReading] | None, source: str) -> Image:
    """Return the result for one image. Without `readings`, its layers are unchecked."""
    layers = _layers(image, readings)
    state, detail = _state(image, layers, source)
    document, config = image.manifest, image.manifest.config
    return Image(
        image.descriptor.digest,
        image.descriptor.media_type,
        image.platform,
        sum(layer.size for layer in document.layers) + (config.size if config else 0),
        layers,
        state,
        detail,
        _same_platform(image, UNCHECKED if readings is None else _programs(image, readings)),
    )


def _layers(image: _Documents, readings: Mapping[str, LayerReading] | None) -> tuple[Layer, ...]:
    layers = []
    described, diff_ids = image.manifest.layers, image.config.diff_ids if image.config else ()
    for layer, expected in zip_longest(described, diff_ids[: len(described)]):
        state, detail = _UNCHECKED
        reading = (readings or {}).get(layer.digest)
        if readings is not None and image.config:
            state, detail = _verified(layer, expected, reading)
        compression = (reading and reading.compression) or named_in(layer.media_type) or "unknown"
        layers.append(Layer(layer.digest, layer.media_type, layer.size, expected, state, detail, compression))
    return tuple(layers)


def _state(image: _Documents, layers: Sequence[Layer], source: str) -> tuple[State, str]:
    """Return the state of an image, and why it is not ``sound``."""
    if image.config is None:
        return "unverifiable", f"{source} does not have this image"
    problems = [*image.problems, *_problems_of_layers(layers, len(image.config.diff_ids))]
    problems = [problem for problem in problems if problem.decides] or problems
    state = worst([problem.state for problem in problems] or [layer.state for layer in layers])
    return state, "; ".join(problem.detail for problem in problems)


def _problems_of_layers(layers: Sequence[Layer], number: int) -> Iterator[Problem]:
    if len(layers) != number:
        lists = f"the manifest lists {len(layers)} layers, but the config lists {number} diff_ids"
        yield Problem("corrupt", lists)
        return
    for at, layer in enumerate(layers, 1):
        if layer.detail:
            yield Problem(layer.state, f"layer {at} {layer.detail}")


def _programs(image: _Documents, readings: Mapping[str, LayerReading]) -> Programs:
    layers = [readings.get(layer.digest) for layer in image.manifest.layers]
    files = [layer.files for layer in layers if layer and layer.diff_id]
    if image.config is None or len(files) < len(layers):
        return Programs("unknown", {}, (), "not all of its layers could be read")
    return check_programs(image.platform, image.config, files)


def _same_platform(image: _Documents, programs: Programs) -> Programs:
    """Return the programs; their state is ``wrong`` if index and config name different platforms."""
    listed, named = image.descriptor.platform, image.config.platform if image.config else None
    if not listed or not named or listed.processor.matches(named.processor):
        return programs
    reason = f"the index names the platform {listed}, but the config names {named}"
    return replace(programs, state="wrong", detail="; ".join(filter(None, [reason, programs.detail])))


_UNCHECKED: tuple[State, str] = ("unchecked", "")


def _verified(layer: Descriptor, expected: str | None, reading: LayerReading | None) -> tuple[State, str]:
    if layer.is_encrypted or reading is None:
        return "unverifiable", "is encrypted"
    problems = list(_layer_problems(layer, expected, reading))
    # Only the worst problem is shown. Others can follow from it.
    state = worst([problem.state for problem in problems] or ["sound"])
    return state, next((problem.detail for problem in problems if problem.state == state), "")


def _layer_problems(layer: Descriptor, expected: str | None, reading: LayerReading) -> Iterator[Problem]:
    short = layer.digest[:_SHORT]
    yield from _media_type_problems(layer, reading)
    if reading.state != "sound":
        what = "is damaged" if reading.state == "corrupt" else "cannot be verified"
        yield Problem(reading.state, f"({short}) {what}: {reading.detail}")
    if layer.urls:
        yield Problem(
            "unverifiable", f"({short}) cannot be verified: it is also listed at other addresses, which are not read"
        )
    if reading.diff_id and reading.size != layer.size:
        yield Problem("corrupt", f"({short}) has {reading.size:,} bytes, but its descriptor says {layer.size:,}")
    if reading.diff_id and reading.diff_id != expected:
        listed = f"the config lists {expected[:_SHORT]}" if expected else "the config lists no diff_id for it"
        yield Problem("corrupt", f"has the diff_id {reading.diff_id[:_SHORT]}, but {listed}")


def _media_type_problems(layer: Descriptor, reading: LayerReading) -> Iterator[Problem]:
    short, media_type = layer.digest[:_SHORT], layer.media_type
    if media_type == manifest.DOCKER_ZSTD_LAYER:
        yield Problem("unverifiable", f"({short}) has the media type {media_type}, which older engines refuse")
    elif not manifest.is_layer(media_type):
        yield Problem("corrupt", f"({short}) has the media type {media_type!r}, which engines refuse")
    elif reading.compression in ("gzip", "zstd") and not manifest.is_decompressed(media_type):
        yield Problem("corrupt", f"({short}) is compressed, but engines do not decompress {media_type}")
