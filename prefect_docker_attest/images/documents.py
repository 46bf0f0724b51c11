"""Parses the JSON documents of an image: indexes, manifests and configs. Pure.

A registry can send anything, so these functions check each value. Their results have the right types and a bounded
size. A digest is always ``sha256:`` and 64 hexadecimal digits, so it is safe as a part of a path.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.images import manifest
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_DOCUMENT = 4 << 20
"""Maximum size of a manifest or config, in bytes. Registries accept the same size."""

_MOST_VALUES = 250_000  # values in one document. Python needs up to 230 bytes for each: 60 MB
_LONGEST_NAME = 255  # characters
_PLATFORM = ("os", "architecture", "variant")
_SHOWN = 80  # characters of a wrong value that an error message shows
_KINDS: dict[type[Any], str] = {dict: "an object", list: "a list", str: "a string"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Only one thread parses a document at a time: several large documents together would need too much memory.
_parsing = threading.Lock()


class ImageError(Exception):
    """An image cannot be inspected.

    Args:
        problem: what failed, with the value that was found
        tip: what to do next, with a command to type if there is one
    """

    def __init__(self, problem: str, tip: str = "") -> None:
        super().__init__(problem)
        self.tip = tip


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
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    urls: bool = False
    is_attestation: bool = False
    attested_image: str | None = None
    predicate_type: str | None = None

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
class Manifest:
    """The manifest of one image or one artifact.

    Attributes:
        config: descriptor of the config; `None` if the manifest has no config
        layers: descriptors of the layers, from the lowest to the highest
        artifact_type: media type of an artifact; ``""`` for an image
    """

    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    artifact_type: str

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
    """

    platform: Platform | None
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_directory: str = ""


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
    return _get(_load(content, "its document"), "mediaType", str, "its document: ") or header


def read_index(content: bytes, name: str) -> tuple[Descriptor, ...]:
    """Parse an index, and return the descriptors that it lists.

    Args:
        content: the document
        name: name of the document in error messages

    Raises:
        ImageError: the document is not a valid index
    """
    document = _load(content, name)
    _refuse(document, ("config", "layers"), name)
    entries = _get(document, "manifests", list, f"{name}: ")
    return tuple(read_descriptor(entry, f"{name}: manifests[{number}]") for number, entry in enumerate(entries))


def read_manifest(content: bytes, name: str) -> Manifest:
    """Parse a manifest. Arguments and errors are those of `read_index`."""
    document = _load(content, name)
    _refuse(document, ("manifests",), name)
    config = document.get("config")
    layers = _get(document, "layers", list, f"{name}: ")
    return Manifest(
        read_descriptor(config, f"{name}: config") if config is not None else None,
        tuple(read_descriptor(layer, f"{name}: layers[{number}]") for number, layer in enumerate(layers)),
        _get(document, "artifactType", str, f"{name}: "),
    )


def read_config(content: bytes, name: str) -> Config:
    """Parse a config. Arguments and errors are those of `read_index`."""
    document = _load(content, name)
    rootfs = _get(document, "rootfs", dict, f"{name}: ")
    config = _get(document, "config", dict, f"{name}: ")
    where = f"{name}: config."
    return Config(
        _platform(document, name),
        _strings(rootfs, "diff_ids", f"{name}: rootfs."),
        _strings(config, "Entrypoint", where),
        _strings(config, "Cmd", where),
        _strings(config, "Env", where),
        _get(config, "WorkingDir", str, where),
    )


def _load(content: bytes, name: str) -> dict[str, Any]:
    if content.count(b",") + content.count(b"{") + content.count(b"[") > _MOST_VALUES:
        raise ImageError(f"{name} has more than {_MOST_VALUES:,} values and is not read.")
    try:
        with _parsing:
            document = json.loads(content)
    except RecursionError:
        raise ImageError(f"{name} is nested too deeply to be read.") from None
    except ValueError as error:  # UnicodeDecodeError is one too
        raise ImageError(f"{name} is not JSON: {str(error)[:_SHOWN]}.") from None
    if not isinstance(document, dict):
        raise ImageError(f"{name} must be a JSON object, not {_shown(document)}.")
    return document


def _refuse(document: Mapping[str, Any], members: tuple[str, ...], name: str) -> None:
    """Refuse a document that some programs read as a manifest and others as an index (CVE-2021-41190).

    containerd refuses it too.
    """
    wrong = next((member for member in members if member in document), None)
    if wrong:
        raise ImageError(f"{name} also has the member {wrong!r}, so other programs may read it differently.")


def read_descriptor(value: Any, where: str) -> Descriptor:
    """Parse a descriptor.

    Args:
        value: the part of a document that holds the descriptor
        where: name of that part in error messages

    Raises:
        ImageError: the value is not a valid descriptor
    """
    if not isinstance(value, dict):
        raise ImageError(f"{where} must be a descriptor, not {_shown(value)}.")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ImageError(f"{where}.digest must be sha256:<64 hexadecimal digits>, not {_shown(digest)}.")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ImageError(f"{where}.size must be a number of bytes, not {_shown(size)}.")
    media_type = value.get("mediaType")
    if not isinstance(media_type, str) or len(media_type) > _LONGEST_NAME:
        raise ImageError(f"{where}.mediaType must be a media type, not {_shown(media_type)}.")
    annotations = _get(value, "annotations", dict, f"{where}.")
    return Descriptor(
        sys.intern(media_type),
        digest,
        size,
        _platform(_get(value, "platform", dict, f"{where}."), f"{where}.platform"),
        bool(_get(value, "urls", list, f"{where}.")),
        annotations.get("vnd.docker.reference.type") == manifest.ATTESTATION,
        _annotation(annotations, "vnd.docker.reference.digest"),
        _annotation(annotations, "in-toto.io/predicate-type"),
    )


def _annotation(annotations: Mapping[str, Any], name: str) -> str | None:
    text = annotations.get(name)
    return text if isinstance(text, str) and len(text) <= _LONGEST_NAME else None


def _platform(value: Mapping[str, Any], where: str) -> Platform | None:
    words = [_get(value, name, str, f"{where}: ") for name in _PLATFORM]
    for name, word in zip(_PLATFORM, words, strict=True):
        if len(word) > _LONGEST_NAME:
            raise ImageError(f"{where}: {name} must be a short name, not {_shown(word)}.")
    return Platform.of_document(*words)


def _strings(value: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    if isinstance(value.get(name), str):  # Docker reads a string as a list with one entry
        return (value[name],)
    strings = _get(value, name, list, where)
    for string in strings:
        if not isinstance(string, str):
            raise ImageError(f"{where}{name} must be a list of strings, not of {_shown(string)}.")
    return tuple(strings)


def _get(value: Mapping[str, Any], name: str, kind: type[Any], where: str) -> Any:
    """Return the member of an object, or an empty value of this kind if the member is absent or null."""
    member = value.get(name)
    if member is None:
        return kind()
    if not isinstance(member, kind):
        raise ImageError(f"{where}{name} must be {_KINDS[kind]}, not {_shown(member)}.")
    return member


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
