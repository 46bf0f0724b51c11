"""Removes the attestations of images in registries: puts a tag on the same images without them.

It writes manifests and indexes only. Layers and configs stay as they are, and so do the digests of the images.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.images.batch import Activity, each_image
from prefect_docker_attest.images.checks import Checks
from prefect_docker_attest.images.documents import ImageError, media_type, read_manifest
from prefect_docker_attest.images.inspection import inspect_image
from prefect_docker_attest.images.inspections import layer_readers
from prefect_docker_attest.images.reference import Reference
from prefect_docker_attest.images.registry import Repository
from prefect_docker_attest.images.registry_image import RegistryImage
from prefect_docker_attest.images.strip_plan import Document, documents_to_write
from prefect_docker_attest.images.tag_writing import write_tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_docker_attest.images.documents import Descriptor
    from prefect_docker_attest.images.layers import Meter
    from prefect_docker_attest.images.result import Inspection
    from prefect_docker_attest.workers import Workers

_IDLE_LIMIT = 300  # seconds without a finished image and without a piece of a layer
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)  # OCI distribution specification
_AFTER_NAME = re.compile(r"(:[^/:@]*)?(@.*)?$")
_COMPLETE = re.compile(r"[^@]+:[^/:@]+@[^@]+")
_AGAIN = "Build the image again with PREFECT_DOCKER_DISABLE_ATTESTATIONS=true, and push it."


@dataclass(frozen=True)
class Stripped:
    """What was done with one image. The fields are keys of ``strip --json``.

    Attributes:
        reference: name of the image, as the user wrote it
        target: name of the image with the tag that was written, such as ``registry.example.com/app:v1``
        old_digest: digest that the name of the image stood for
        new_digest: digest of the image without attestations
        written: whether the tag was written
        replaced: digest that the tag named before; `None` if there was no such tag
        removed: digests of the attestations that the new index or manifest does not list
        referrers: those of them that have a subject. Registries with the referrers API still list them
        others: digests of other entries that are not listed any more, because they are not images
        restore: command that puts the tag back; `None` if the tag was not moved
    """

    reference: str
    target: str
    old_digest: str
    new_digest: str
    written: bool
    replaced: str | None = None
    removed: tuple[str, ...] = ()
    referrers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    restore: str | None = None


@dataclass(frozen=True)
class StripResult:
    """What was done with one image, or the reason why it failed.

    Attributes:
        reference: name of the image, as the user wrote it
        stripped: what was done; `None` if it failed
        error: why it failed; ``""`` if it did not
        tip: what to do about the error; ``""`` if there is no advice
        retryable: whether the same command can succeed later
        unsound: whether it failed because the image is corrupt, or did not pass the verification
    """

    reference: str
    stripped: Stripped | None = None
    error: str = ""
    tip: str = ""
    retryable: bool = False
    unsound: bool = False


class UnsoundImageError(ImageError):
    """The image is corrupt, or did not pass the verification."""


def usage_problem(images: Sequence[str], tag: str | None, *, restore: bool) -> str:
    """Return what is wrong with the arguments of `strip`; ``""`` if nothing is."""
    if restore:
        is_complete = tag is None and all(map(_COMPLETE.fullmatch, images))
        return "" if is_complete else "--restore needs NAME:TAG@sha256:DIGEST, and no --tag."
    if tag is None:
        return "A name with a digest needs --tag NEW." if any("@" in image for image in images) else ""
    if not _TAG.fullmatch(tag):
        return f"{tag!r} is not a tag."
    repositories = {_AFTER_NAME.sub("", image) for image in images}
    return "" if len(repositories) == len(images) else "--tag NEW cannot name several images of one repository."


def strip_images(
    references: Sequence[str], meter: Meter, *, tag: str | None, verify_layers: bool, dry_run: bool
) -> Iterator[StripResult]:
    """Remove the attestations of images at the same time, and yield the results in the order of the names.

    Args:
        references: names of images in registries
        meter: shows how much of each layer has been read
        tag: tag to write; `None` for the tag of each image
        verify_layers: whether to read every layer first. An image that is not sound is not written
        dry_run: whether to write nothing
    """
    readers = layer_readers()
    activity = Activity(_IDLE_LIMIT, meter)

    def removal(reference: str) -> StripResult:
        name = Reference.parse(reference)
        with _Source(name, readers, activity.meter) as source:
            inspection = inspect_image(source, reference, verify_layers=verify_layers)
            _refuse_unsound(inspection, verify_layers=verify_layers)
            return StripResult(reference, _strip(source, name, inspection, tag, dry_run=dry_run))

    return each_image(references, removal, _failed, activity)


def restore_images(references: Sequence[str], meter: Meter, *, dry_run: bool) -> Iterator[StripResult]:
    """Put tags back on the digests that they named before.

    Args:
        references: names of images with tag and digest
        meter: see `strip_images`
        dry_run: whether to write nothing
    """

    def restoration(reference: str) -> StripResult:
        name = Reference.parse(reference)
        with Repository(name, tip="", retries=True) as repository:
            served_as, content = repository.document(f"manifests/{name.digest}", name.digest)
            old = Document(media_type(content, served_as), content)
            tag = str(name.tag)
            seen = {tag: repository.tagged(tag)}
            written = not dry_run and seen[tag] != old.digest
            if written:
                write_tag(repository, tag, [old], seen)
        now = seen[tag] or old.digest
        return StripResult(reference, Stripped(reference, f"{name.name}:{tag}", now, old.digest, written, seen[tag]))

    return each_image(references, restoration, _failed, Activity(_IDLE_LIMIT, meter))


def _failed(reference: str, error: ImageError) -> StripResult:
    return StripResult(reference, None, str(error), error.tip, error.retryable, isinstance(error, UnsoundImageError))


def _refuse_unsound(inspection: Inspection, *, verify_layers: bool) -> None:
    """Refuse an image that is corrupt. If its layers were read, they and the programs in them must be right."""
    checks = Checks(attestations=False, corruption=verify_layers, programs=verify_layers, platforms=())
    failures = list(checks.failures(inspection))
    if inspection.state == "corrupt" and not failures:
        failures = [f"{image.platform or image.digest} is corrupt: {image.detail}" for image in inspection.images]
    if failures:
        raise UnsoundImageError(f"{'; '.join(failures)}. Nothing was written.", _AGAIN)


def _strip(source: _Source, name: Reference, inspection: Inspection, tag: str | None, *, dry_run: bool) -> Stripped:
    documents = documents_to_write(source.descriptor, inspection, source.contents)
    new, target = documents[-1], tag or str(name.tag)
    # A digest never names anything else, a tag can.
    seen: dict[str, str | None] = {} if name.digest else {str(name.tag): inspection.digest}
    replaced = seen[target] = seen.get(target) or source.tagged(target)
    written = not dry_run and replaced != new.digest
    if written:
        write_tag(source, target, documents, seen)
    removed = tuple(attestation.digest for attestation in inspection.attestations)
    return Stripped(
        inspection.reference,
        f"{name.name}:{target}",
        inspection.digest,
        new.digest,
        written,
        replaced,
        removed,
        tuple(filter(source.has_subject, removed)),
        inspection.others if removed else (),
        _restoring(f"{name.name}:{target}@{replaced}") if written and replaced else None,
    )


def _restoring(image: str) -> str:
    """Return the command that puts the tag of an image back on its digest."""
    return shlex.join(["prefect-docker-attest", "strip", "--restore", image])


class _Source(RegistryImage):
    """An image in a registry whose manifests and indexes are kept.

    Attributes:
        contents: what was read, by its digest
        descriptor: descriptor of the manifest or index that the name stands for
    """

    descriptor: Descriptor

    def __init__(self, reference: Reference, workers: Workers, meter: Meter) -> None:
        super().__init__(reference, workers, meter, tip="", retries=True)
        self.contents: dict[str, bytes] = {}

    def root(self) -> Descriptor:
        self.descriptor = super().root()
        return self.descriptor

    def read(self, descriptor: Descriptor) -> bytes:
        content = super().read(descriptor)
        self.contents[descriptor.digest] = content
        return content

    def has_subject(self, digest: str) -> bool:
        """Whether this attestation names its image as its subject."""
        content = self.contents.get(digest)
        return content is not None and read_manifest(content, digest).has_subject
