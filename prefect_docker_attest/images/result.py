"""The result of an inspection. The fields of these classes are the keys of ``inspect --json``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Self

    from prefect_docker_attest.images.documents import Descriptor
    from prefect_docker_attest.layer_compression import Method

State = Literal["corrupt", "unverifiable", "unchecked", "sound"]
ProgramsState = Literal["right", "wrong", "mixed", "none", "unknown", "unchecked"]
_WORST_FIRST: tuple[State, ...] = ("corrupt", "unverifiable", "unchecked", "sound")


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        digest: digest of the blob
        media_type: media type of the blob
        size: size of the blob, in bytes
        diff_id: digest of the uncompressed layer, as the image's config lists it; `None` if it lists none
        state: result of the verification
        detail: why the state is not ``sound``
        compression: ``gzip``, ``zstd`` or ``uncompressed``, as the blob begins if it was read, else as the media type
            names it; ``unknown`` if neither is known
    """

    digest: str
    media_type: str
    size: int
    diff_id: str | None
    state: State
    detail: str
    compression: Method | Literal["unknown"]


@dataclass(frozen=True)
class Programs:
    """The programs and libraries in an image, compared with the image's platform.

    Attributes:
        state: ``right``: the programs are for the image's platform; ``wrong``: the image or most of its commands cannot
            start; ``mixed``: the image also has programs for other processors; ``none``: the image has no programs;
            ``unknown``: the programs could not be compared; ``unchecked``: the layers were not read
        counts: number of programs for each platform
        examples: paths of some programs for other platforms
        detail: why the state is not ``right``
    """

    state: ProgramsState
    counts: dict[str, int]
    examples: tuple[str, ...]
    detail: str

    @property
    def can_start(self) -> bool:
        """Whether the image can start on its platform, judging by its programs."""
        return self.state in ("right", "mixed", "none")


@dataclass(frozen=True)
class Image:
    """The image for one platform.

    Attributes:
        digest: digest of the manifest
        media_type: media type of the manifest
        platform: as the index or the config names it; `None` if neither names a platform
        size: size of config and compressed layers, in bytes
        layers: from the lowest to the highest
        state: the worst state of the layers
        detail: why the state is not ``sound``
        programs: the image's programs, compared with the platform
    """

    digest: str
    media_type: str
    platform: Platform | None
    size: int
    layers: tuple[Layer, ...]
    state: State
    detail: str
    programs: Programs


@dataclass(frozen=True)
class Attestation:
    """An attestation manifest.

    Attributes:
        digest: digest of the manifest
        media_type: media type of the manifest
        image: digest of the image that the attestation describes; `None` if it names none
        platform: platform of that image; `None` if the index does not list the image
        predicate_types: in-toto predicate types; empty if the manifest could not be read
    """

    digest: str
    media_type: str
    image: str | None
    platform: Platform | None
    predicate_types: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """The inspection of one image name.

    Attributes:
        reference: name of the image, as the user wrote it
        source: the registry or engine that has the image
        digest: digest of the manifest or index
        media_type: media type of the manifest or index
        images: the images, one for each platform
        attestations: the attestations of these images
        others: digests of entries of the index that are neither image nor attestation
        state: the worst state of the images
    """

    reference: str
    source: str
    digest: str
    media_type: str
    images: tuple[Image, ...]
    attestations: tuple[Attestation, ...]
    others: tuple[str, ...]
    state: State

    @classmethod
    def of(
        cls,
        reference: str,
        source: str,
        root: Descriptor,
        *,
        images: Sequence[Image],
        attesting: Iterable[tuple[Descriptor, str | None, tuple[str, ...]]],
        others: Iterable[str],
    ) -> Self:
        """Return the inspection of what `root` lists. Of each attestation, it needs three of its values.

        Raises:
            ImageError: there are no images
        """
        if not images:
            raise ImageError(f"{reference} is an index that lists no container image.")
        platforms = {image.digest: image.platform for image in images}
        attestations = tuple(
            Attestation(descriptor.digest, descriptor.media_type, image, platforms.get(image or ""), types)
            for descriptor, image, types in attesting
        )
        state = worst(image.state for image in images)
        return cls(reference, source, root.digest, root.media_type, tuple(images), attestations, tuple(others), state)


def json_value(value: object) -> Any:
    """Return the JSON value of one of these objects, for the argument ``default`` of `json.dumps`."""
    if isinstance(value, Platform):
        return str(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]


def worst(states: Iterable[State]) -> State:
    """Return the worst of these states; ``unchecked`` for an empty list."""
    return min(states, key=_WORST_FIRST.index, default="unchecked")
