"""Parses the JSON documents of an image: indexes, manifests and configs. Pure.

A registry can send anything, so these functions check each value. Their results have the right types and a bounded
size. A digest is always ``sha256:`` and 64 hexadecimal digits, so it is safe as a part of a path.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.images import manifest
from prefect_docker_attest.images.go_json import (
    Base64,
    Map,
    NotReadableError,
    Pointer,
    Raw,
    Struct,
    Time,
    read_json,
    shown,
)
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_DOCUMENT = 4 << 20
"""Maximum size of a manifest or config, in bytes. Registries accept the same size."""

LATER = "Try again later."
"""The tip for a server that fails for a while."""

_LONGEST_NAME = 255  # characters
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# The structs of image-spec (specs-go/v1) and of Docker's configs. Engines refuse members of other types.
_PLATFORM = Struct({"architecture": str, "os": str, "os.version": str, "os.features": [str], "variant": str})
_DESCRIPTOR = Struct(
    {
        "mediaType": str,
        "digest": str,
        "size": int,
        "urls": [str],
        "annotations": Map(str),
        "data": Base64,
        "platform": Pointer(_PLATFORM),
        "artifactType": str,
    }
)
_COMMON = {"schemaVersion": int, "mediaType": str, "artifactType": str, "annotations": Map(str), "fsLayers": Raw}
_COMMON["subject"] = _DESCRIPTOR
_INDEX = Struct({**_COMMON, "manifests": [_DESCRIPTOR], "config": Raw, "layers": Raw})
_MANIFEST = Struct({**_COMMON, "config": _DESCRIPTOR, "layers": [_DESCRIPTOR], "manifests": Raw})
_HEALTH_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
_HISTORY = {"created": Time, "created_by": str, "author": str, "comment": str, "empty_layer": bool}
_EMPTY = Struct({})
_SETTINGS = {
    **dict.fromkeys(("User", "WorkingDir", "StopSignal"), str),
    **{name: [str] for name in ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell")},
    **dict.fromkeys(("ExposedPorts", "Volumes"), Map(_EMPTY)),
    "Labels": Map(str),
    "ArgsEscaped": bool,
    "Healthcheck": Struct({"Test": [str], **dict.fromkeys(_HEALTH_TIMES, int)}),
}
_CONFIG = Struct(
    {
        **_PLATFORM.members,
        "created": Time,
        "author": str,
        "config": Struct(_SETTINGS),
        "rootfs": Struct({"type": str, "diff_ids": [str]}),
        "history": [Struct(_HISTORY)],
    }
)


class ImageError(Exception):
    """An image cannot be inspected.

    Args:
        problem: what failed, with the value that was found
        tip: what to do next, with a command to type if there is one
        retryable: whether the same inspection can succeed later
        retry_after: seconds that the server asks to wait; `None` if it names no time
    """

    def __init__(
        self, problem: str, tip: str = "", *, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(problem)
        self.tip = tip
        self.retryable = retryable
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A content descriptor of the OCI image specification.

    Attributes:
        media_type: media type of the content, as the document names it
        digest: digest of the content, ``sha256:<64 hexadecimal digits>``
        size: size of the content, in bytes
        platform: platform of the image; `None` if the descriptor names no platform
        urls: whether the descriptor lists other addresses of the content
        is_attestation: whether BuildKit marked the content as an attestation
        attested_image: digest of the image that the attestation describes
        predicate_type: in-toto predicate type of the content, such as ``https://spdx.dev/Document``
        matches_nothing: whether the descriptor has a platform without an architecture, which matches no machine
        served_as: media type that the registry names, if engines do not know it
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    urls: bool = False
    is_attestation: bool = False
    attested_image: str | None = None
    predicate_type: str | None = None
    matches_nothing: bool = False
    served_as: str = ""

    @property
    def is_index(self) -> bool:
        """Whether the content is an index (Docker: a manifest list)."""
        return manifest.is_index(self.media_type)

    @property
    def is_known(self) -> bool:
        """Whether the content is an index or a manifest."""
        return self.is_index or self.is_manifest

    @property
    def is_manifest(self) -> bool:
        """Whether the content is the manifest of one image or one artifact."""
        return self.media_type in manifest.MANIFEST_KINDS

    @property
    def is_encrypted(self) -> bool:
        """Whether the content is an encrypted layer."""
        return self.media_type.endswith("+encrypted")


@dataclass(frozen=True)
class Index:
    """An index.

    Attributes:
        entries: descriptors of the manifests
        twice: pairs of members whose names are equal for engines
    """

    entries: tuple[Descriptor, ...]
    twice: Sequence[str] = ()


@dataclass(frozen=True)
class Manifest:
    """The manifest of one image or one artifact.

    Attributes:
        config: descriptor of the config; `None` if the manifest has no config
        layers: descriptors of the layers, from the lowest to the highest
        artifact_type: media type of an artifact; ``""`` for an image
        twice: pairs of members whose names are equal for engines
        has_subject: whether it names another manifest as its subject: registries list it as a referrer of that one
    """

    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    artifact_type: str
    twice: Sequence[str] = ()
    has_subject: bool = False

    @property
    def is_image(self) -> bool:
        """Whether the manifest describes a container image. Helm charts and signatures have manifests too."""
        return self.config is not None and self.config.media_type in manifest.CONFIG_MEDIA_TYPES

    @property
    def kind(self) -> str:
        """The artifact type, or the media type of the config."""
        return self.artifact_type or (self.config.media_type if self.config else "")

    @property
    def predicate_types(self) -> tuple[str, ...]:
        """The predicate types of the attestations in this manifest; empty for an image."""
        return tuple(layer.predicate_type for layer in self.layers if layer.predicate_type)


NO_MANIFEST = Manifest(None, (), "")
"""Stands for a manifest that the registry or engine does not have."""


@dataclass(frozen=True)
class Config:
    """The parts of an image's config that the inspection uses.

    Attributes:
        platform: platform of the image; `None` if the config names no platform
        diff_ids: digests of the uncompressed layers, from the lowest to the highest
        entrypoint: the words of ``ENTRYPOINT``
        command: the words of ``CMD``
        environment: variables as ``NAME=value``
        working_directory: absolute path; ``""`` if the config names none
        layered: whether the type of the root file system is ``layers``, the only one that image-spec knows
        twice: pairs of members whose names are equal for engines
    """

    platform: Platform | None
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_directory: str = ""
    layered: bool = True
    twice: Sequence[str] = ()


def digest_of(content: bytes | bytearray) -> str:
    """Return the digest of some content, ``sha256:<64 hexadecimal digits>``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def media_type(content: bytes, header: str) -> str:
    """Return the media type of a document.

    Args:
        content: the document
        header: the ``Content-Type`` of the response. If it is not the type of an index or a manifest, the member
            ``mediaType`` of the document is used

    Raises:
        ImageError: the document is invalid
    """
    if header in (*manifest.INDEX_KINDS, *manifest.MANIFEST_KINDS) or not content.lstrip().startswith(b"{"):
        return header
    return _members(content, Struct({"mediaType": str}), "its document")["mediaType"] or header


def read_index(content: bytes, name: str) -> Index:
    """Parse an index.

    Args:
        content: the document
        name: name of the document in error messages

    Raises:
        ImageError: engines cannot read the document, or it is not an index
    """
    document = _members(content, _INDEX, name)
    _refuse(document, ("config", "layers"), manifest.MANIFEST_KINDS, name)
    entries = enumerate(document["manifests"])
    return Index(
        tuple(_descriptor(entry, f"{name}: manifests[{number}]") for number, entry in entries), document["twice"]
    )


def read_manifest(content: bytes, name: str) -> Manifest:
    """Parse a manifest. Arguments and errors are those of `read_index`."""
    document = _members(content, _MANIFEST, name)
    _refuse(document, ("manifests",), manifest.INDEX_KINDS, name)
    config, layers = document["config"], enumerate(document["layers"])
    return Manifest(
        _descriptor(config, f"{name}: config") if config["digest"] else None,
        tuple(_descriptor(layer, f"{name}: layers[{number}]") for number, layer in layers),
        document["artifactType"],
        document["twice"],
        bool(document["subject"]["digest"]),
    )


def read_config(content: bytes, name: str) -> Config:
    """Parse a config. Arguments and errors are those of `read_index`."""
    document = _members(content, _CONFIG, name)
    settings, rootfs = document["config"], document["rootfs"]
    return Config(
        _platform(document, name),
        tuple(rootfs["diff_ids"]),
        tuple(settings["Entrypoint"]),
        tuple(settings["Cmd"]),
        tuple(settings["Env"]),
        settings["WorkingDir"],
        rootfs["type"] in ("", "layers"),
        document["twice"],
    )


def read_descriptor(value: object, where: str) -> Descriptor:
    """Parse a descriptor in the answer of an engine.

    Args:
        value: the part of a JSON document that holds the descriptor
        where: name of that part in error messages

    Raises:
        ImageError: the value is not a valid descriptor
    """
    content = json.dumps(value).encode()
    return _descriptor(_members(content, _DESCRIPTOR, where), where)


def _members(content: bytes, kind: Struct, name: str) -> dict[str, Any]:
    """Return the members of a document, and as ``twice`` the pairs of members with equal names."""
    try:
        members, twice = read_json(content, kind)
    except NotReadableError as error:
        raise ImageError(f"{name}{':' if error.member else ''} {error}.") from None
    return {**members, "twice": twice}


def _refuse(document: Mapping[str, Any], members: tuple[str, ...], kinds: Mapping[str, str], name: str) -> None:
    """Refuse a document that some programs read as a manifest and others as an index (CVE-2021-41190).

    containerd refuses it too.
    """
    wrong = next((member for member in members if document[member]), None)
    if wrong:
        raise ImageError(f"{name} also has the member {wrong!r}, so other programs may read it differently.")
    if document["mediaType"] in kinds:
        raise ImageError(
            f"{name} has the media type {document['mediaType']}, so other programs may read it differently."
        )
    if document["fsLayers"]:
        raise ImageError(f"{name} has the member 'fsLayers': images of Docker before 1.10 are not supported.")


def _descriptor(value: Mapping[str, Any], where: str) -> Descriptor:
    digest, size, media_type = value["digest"], value["size"], value["mediaType"]
    if not _DIGEST.fullmatch(digest):
        raise ImageError(f"{where}.digest must be sha256:<64 hexadecimal digits>, not {shown(digest)}.")
    if size < 0:
        raise ImageError(f"{where}.size must be a number of bytes, not {size}.")
    if len(media_type) > _LONGEST_NAME:
        raise ImageError(f"{where}.mediaType must be a media type, not {shown(media_type)}.")
    annotations = value["annotations"]
    return Descriptor(
        sys.intern(media_type),
        digest,
        size,
        _platform(value["platform"], f"{where}.platform") if value["platform"] else None,
        bool(value["urls"]),
        annotations.get("vnd.docker.reference.type") == manifest.ATTESTATION,
        _annotation(annotations, "vnd.docker.reference.digest"),
        _annotation(annotations, "in-toto.io/predicate-type"),
        bool(value["platform"]) and not value["platform"]["architecture"],
    )


def _annotation(annotations: Mapping[str, str], name: str) -> str | None:
    text = annotations.get(name, "")
    return text if 0 < len(text) <= _LONGEST_NAME else None


def _platform(value: Mapping[str, Any], where: str) -> Platform | None:
    names = ("os", "architecture", "variant")
    for name in names:
        if len(value[name]) > _LONGEST_NAME:
            raise ImageError(f"{where}: {name} must be a short name, not {shown(value[name])}.")
    return Platform.of_document(*(value[name] for name in names))
