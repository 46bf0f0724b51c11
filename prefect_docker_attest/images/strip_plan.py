"""Finds out what to write so that an image has no attestations. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.images import documents
from prefect_docker_attest.images.documents import ImageError, digest_of
from prefect_docker_attest.images.inspection import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefect_docker_attest.images.documents import Descriptor
    from prefect_docker_attest.images.result import Inspection


@dataclass(frozen=True)
class Document:
    """A manifest or an index.

    Attributes:
        media_type: media type
        content: content
        digest: digest of the content
    """

    media_type: str
    content: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.content)


def documents_to_write(root: Descriptor, inspection: Inspection, contents: Mapping[str, bytes]) -> list[Document]:
    """Return the documents of an image without attestations. Each one is listed after those that it lists itself.

    The last one is what a tag must name: the image's own manifest, or, if there are several images, an index of them.
    Indexes without attestations and manifests are not written again, except the last one.

    Args:
        root: descriptor of the manifest or index that the image's name stands for
        inspection: inspection of the image
        contents: all manifests and indexes of the image, by their digests

    Raises:
        ImageError: an index cannot be written again
    """
    if not inspection.attestations:
        return [Document(root.media_type, contents[root.digest])]
    if len(inspection.images) == 1:
        (image,) = inspection.images
        content = contents[image.digest]
        return [Document(documents.media_type(content, image.media_type), content)]
    rewriting = _Rewriting(contents)
    rewriting.write(root)
    return rewriting.written


class _Rewriting:
    """Writes indexes that list images only.

    Attributes:
        written: the new indexes. Each one follows those that it lists
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents
        self.written: list[Document] = []

    def write(self, index: Descriptor) -> Document | None:
        """Write an index that lists only images; return `None` if it lists none."""
        document = self._members(index)
        images = [kept for entry, member in self._entries(index) if (kept := self._kept(entry, member))]
        if not images:
            return None
        new = Document(index.media_type, json.dumps({**document, "manifests": images}, separators=(",", ":")).encode())
        self.written.append(new)
        return new

    def _kept(self, entry: Descriptor, member: dict[str, Any]) -> dict[str, Any] | None:
        """Return the member of an index for one of its entries; `None` if the entry is dropped."""
        if not entry.is_index:
            return member if self._kind(entry) == "image" else None
        if not self._has_attestations(entry):
            return member
        new = self.write(entry)
        # The member `data` would hold the old content.
        rest = {name: value for name, value in member.items() if name != "data"}
        return {**rest, "digest": new.digest, "size": len(new.content)} if new else None

    def _has_attestations(self, index: Descriptor) -> bool:
        return any(
            self._has_attestations(entry) if entry.is_index else self._kind(entry) == "attestation"
            for entry, _ in self._entries(index)
        )

    def _kind(self, entry: Descriptor) -> str:
        content = self._contents.get(entry.digest)
        return kind_of(entry, None if content is None else documents.read_manifest(content, entry.digest))

    def _entries(self, index: Descriptor) -> Iterator[tuple[Descriptor, dict[str, Any]]]:
        entries = documents.read_index(self._contents[index.digest], index.digest).entries
        yield from zip(entries, self._members(index)["manifests"], strict=True)

    def _members(self, index: Descriptor) -> dict[str, Any]:
        """Return the members of an index.

        Engines ignore the case of names, so they can see members that other programs do not see.
        """
        content = self._contents[index.digest]
        twice = documents.read_index(content, index.digest).twice
        try:
            members: dict[str, Any] = json.loads(content.decode())
        except UnicodeDecodeError:
            members = {}
        listed = members.get("manifests")
        if twice or not isinstance(listed, list) or not all(map(_is_plain, listed)):
            raise ImageError(
                f"The index {index.digest} has members with unusual names or characters, so it is not written again.",
                "Build the image again with PREFECT_DOCKER_DISABLE_ATTESTATIONS=true, and push it.",
            )
        return members


def _is_plain(entry: object) -> bool:
    return isinstance(entry, dict) and {"mediaType", "digest", "size"} <= entry.keys()
