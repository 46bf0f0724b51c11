"""Checks the result of a build: the image must be in the right engine, without attestations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.failures import Failure
from prefect_docker_attest.images import manifest
from prefect_docker_attest.names import SETTING
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from prefect_docker_attest.buildx.metadata import Metadata
    from prefect_docker_attest.buildx.target import Target
    from prefect_docker_attest.options.table import BuildxOptions

_WITH_ATTESTATIONS = f"with attestations, although {SETTING} is set"
_CHECK_BUILDX = (
    f"Run `docker buildx version`: {docker_cli.format_version(docker_cli.MINIMUM_BUILDX)} or newer is needed."
)


def image_in_engine(metadata: Metadata, options: BuildxOptions, target: Target) -> str:
    """Return the id of the image: the digest in the metadata that the engine has.

    The id is the config's digest with the graphdriver image store, and the manifest's or index's digest with the
    containerd image store. Asking for the tag is not enough: the builder may have put the image into another engine,
    and the tag may belong to an older image.

    Raises:
        BuildFailed: the engine does not have the image
    """
    for digest in metadata.image_ids:
        if image := target.image_id(digest):
            return image
    builder = docker_cli.find_builder(target.docker, options.builder)
    # The containerd image store removes an image when its only name moves to another image.
    if builder and builder.is_engine and (taken := [tag for tag in options.tags if target.image_id(tag)]):
        raise _failed(
            f"The build succeeded, but another build used the tag {taken[0]} at the same time, so the Docker Engine "
            "deleted this image.",
            "Use a different tag for each build, or run the builds one after another.",
        )
    raise _failed(
        f"The build succeeded, but {target.name} does not hold the image "
        f"{' or '.join(metadata.image_ids) or 'without an id'} ({builder or 'unknown builder'}).",
        "Run `docker buildx use default` and unset BUILDX_BUILDER, or set DOCKER_HOST to the engine shown by "
        "`docker context ls`.",
    )


def check_manifest(metadata: Metadata, options: BuildxOptions) -> None:
    """Check that a build for one platform without attestations made a manifest, and that its media types are right.

    With the graphdriver store the metadata has no descriptor. Images in this store have no attestations, and its engine
    pushes them with Docker's media types. BuildKit uses OCI media types if an image has attestations.

    Raises:
        BuildFailed: the build made an index, or the image has other media types than requested
    """
    media_type, wanted = metadata.media_type, options.media_types
    if options.attestations_disabled and not options.multi_platform and manifest.is_index(media_type):
        raise _failed(
            f"The image was built {_WITH_ATTESTATIONS}: it is an index ({media_type}) instead of a manifest.",
            _CHECK_BUILDX,
        )
    if wanted and media_type and (wanted == "oci") != media_type.startswith("application/vnd.oci."):
        raise _failed(
            f"The image has other media types ({media_type}) than media_types={wanted!r}, because attestations need "
            "OCI media types.",
            f"Build without attestations: set {SETTING}=true, or use provenance=False and sbom=False.",
            concerns=("media_types",),
        )


def check_podman_image(description: Mapping[str, Any] | None, platform: Platform | None) -> str:
    """Check that an image of Podman's own builder is one manifest, and is for the requested platform.

    Podman's build cache does not compare platforms: a build ``FROM scratch`` can give the image of an earlier build for
    another platform (seen with 4.3.1 and 5.4.2).

    Args:
        description: what Podman's own API answers about the image; `None` if it does not answer
        platform: the requested platform; `None` for any

    Returns:
        what was not checked, in parentheses after a space; ``""`` if everything was checked

    Raises:
        BuildFailed: the image is an index, or is for another platform
    """
    about = description or {}
    media_type, found = about.get("ManifestType"), Platform.of_document(about.get("Os"), about.get("Architecture"))
    if not isinstance(media_type, str) or found is None:
        return " (not checked: Podman does not describe the image)"
    if manifest.is_index(media_type):
        raise _failed(f"Podman made an index ({media_type}) instead of a manifest.", "Build for one platform.")
    if platform and platform.processor != found:
        raise _failed(
            f"Podman made an image for {found}, not for {platform}.",
            "Its build cache does not compare platforms: use nocache=True. Check also the platform of the base image "
            "and `FROM --platform=...` in the Dockerfile.",
            concerns=("platform",),
        )
    # Podman does not show the variant of an image.
    has_variants = platform and (platform.variant or platform.architecture == "arm")
    return f" (the variant of {platform} was not checked)" if has_variants else ""


def check_index_in_engine(target: Target, image: str) -> None:
    """Check that an index in the engine contains no attestations.

    Engines list the manifests of an index since API 1.48 (Docker 28). With older engines nothing is checked.

    Args:
        target: the engine
        image: id of the index

    Raises:
        BuildFailed: the index contains an attestation
    """
    if target.lists_attestations(image):
        raise _failed(f"The image was built {_WITH_ATTESTATIONS}.", _CHECK_BUILDX)


def check_index_in_registry(name: str, metadata: Metadata) -> None:
    """Check that an index in a registry contains no attestations. If the registry does not answer, nothing is checked.

    Args:
        name: name of the image
        metadata: metadata of the build

    Raises:
        BuildFailed: the index contains an attestation
    """
    if not metadata.digest:
        return
    answer = docker_cli.run_docker(("buildx", "imagetools", "inspect", "--raw", f"{name}@{metadata.digest}"))
    if answer.returncode == 0 and manifest.attestations(json.loads(answer.stdout)):
        raise _failed(f"{name} was pushed {_WITH_ATTESTATIONS}.", _CHECK_BUILDX)


def _failed(note: str, tip: str, concerns: tuple[str, ...] = ()) -> BuildFailed:
    return BuildFailed(Failure(notes=(note,), tip=tip, concerns=concerns))
