"""Checks the result of a build: the image must be in the right engine, without attestations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from docker import errors as docker_errors

from prefect_docker_attest.buildx import docker_cli
from prefect_docker_attest.errors import BuildFailed
from prefect_docker_attest.images import manifest
from prefect_docker_attest.names import SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docker import APIClient

    from prefect_docker_attest.options.table import BuildxOptions

Metadata = dict[str, Any]
"""The JSON object that buildx writes to ``--metadata-file``."""

_WITH_ATTESTATIONS = f"with attestations, although {SETTING} is set"
_CHECK_BUILDX = (
    f"Run `docker buildx version`: {docker_cli.format_version(docker_cli.MINIMUM_BUILDX)} or newer is needed."
)


def image_id(
    metadata: Metadata,
    options: BuildxOptions,
    inspect: Callable[[str], str | None],
    *,
    engine: str,
    docker: Sequence[str],
) -> str:
    """Return the id of the image: the digest in the metadata that the engine has.

    The id is the config's digest with the graphdriver image store, and the manifest's or index's digest with the
    containerd image store. Asking for the tag is not enough: the builder may have put the image into another engine,
    and the tag may belong to an older image.

    Args:
        metadata: metadata of the build
        options: options of the build
        inspect: function that returns the id of the image with a digest: `inspect_by_docker_py` or `inspect_by_cli`
        engine: name of the engine in messages
        docker: the docker CLI that ran the build

    Raises:
        BuildFailed: the engine does not have the image
    """
    digests = manifest.image_ids(metadata)
    for digest in digests:
        if found := inspect(digest):
            return found
    builder = docker_cli.builder(docker, options.builder)
    # The containerd image store removes an image when its only name moves to another image.
    if builder.is_engine and (taken := [tag for tag in options.tags if inspect(tag)]):
        raise BuildFailed(
            f"The build succeeded, but another build used the tag {taken[0]} at the same time, so the Docker Engine "
            "deleted this image.\n"
            "TIP Use a different tag for each build, or run the builds one after another."
        )
    raise BuildFailed(
        f"The build succeeded, but {engine} does not hold the image {' or '.join(digests) or 'without an id'} "
        f"({builder}).\n"
        "TIP Run `docker buildx use default` and unset BUILDX_BUILDER, or set DOCKER_HOST to the engine shown by "
        "`docker context ls`."
    )


def inspect_by_docker_py(api: APIClient, image: str) -> str | None:
    """Return the id of the image with this digest or name in a docker-py client's engine; `None` without one."""
    try:
        # docker-py's own `inspect_image` is patched.
        url = api._url("/images/{0}/json", image)  # type: ignore[attr-defined]  # noqa: SLF001
        answer: Any = api._result(api._get(url), json=True)  # type: ignore[attr-defined]  # noqa: SLF001
    except docker_errors.NotFound:
        return None
    return str(answer["Id"])


def inspect_by_cli(digest: str) -> str | None:
    """Return the id of the image with this digest in the current context's engine; `None` if there is no such image."""
    answer = docker_cli.run_docker(("image", "inspect", "--format={{.Id}}", digest))
    return answer.stdout.strip() if answer.returncode == 0 else None


def check_manifest(metadata: Metadata) -> None:
    """Check that a build for one platform without attestations made a manifest.

    With the graphdriver store the metadata has no descriptor. Images in this store have no attestations.

    Args:
        metadata: metadata of the build

    Raises:
        BuildFailed: the build made an index
    """
    media_type = metadata.get("containerimage.descriptor", {}).get("mediaType", "")
    if manifest.is_index(media_type):
        raise BuildFailed(
            f"The image was built {_WITH_ATTESTATIONS}: it is an index ({media_type}) instead of a manifest.\n"
            f"TIP {_CHECK_BUILDX}"
        )


def check_media_types(metadata: Metadata, media_types: str | None) -> None:
    """Check that an image has the requested media types. BuildKit uses OCI media types if an image has attestations.

    With the graphdriver store the metadata has no descriptor. Its engine pushes images with Docker's media types.

    Args:
        metadata: metadata of the build
        media_types: ``docker``, ``oci``, or `None` for any

    Raises:
        BuildFailed: the image has other media types
    """
    found = metadata.get("containerimage.descriptor", {}).get("mediaType", "")
    if media_types and found and (media_types == "oci") != found.startswith("application/vnd.oci."):
        raise BuildFailed(
            f"The image has other media types ({found}) than media_types={media_types!r}, because attestations need "
            "OCI media types.\n"
            f"TIP Build without attestations: set {SETTING}=true, or use provenance=False and sbom=False."
        )


def check_index_in_engine(api: APIClient, image: str) -> None:
    """Check that an index in the engine contains no attestations.

    Engines list the manifests of an index since API 1.48 (Docker 28). With older engines nothing is checked.

    Args:
        api: a client of the engine
        image: id of the index

    Raises:
        BuildFailed: the index contains an attestation
    """
    url = api._url("/images/{0}/json", image)  # type: ignore[attr-defined]  # noqa: SLF001
    answer: Any = api._get(url, params={"manifests": 1})  # type: ignore[attr-defined]  # noqa: SLF001
    if any(entry["Kind"] == "attestation" for entry in answer.json().get("Manifests") or ()):
        raise BuildFailed(f"The image was built {_WITH_ATTESTATIONS}.\nTIP {_CHECK_BUILDX}")


def check_index_in_registry(tag: str, metadata: Metadata) -> None:
    """Check that an index in a registry contains no attestations. If the registry does not answer, nothing is checked.

    Args:
        tag: name of the image
        metadata: metadata of the build

    Raises:
        BuildFailed: the index contains an attestation
    """
    digest = metadata.get("containerimage.digest")
    if not digest:
        return
    answer = docker_cli.run_docker(("buildx", "imagetools", "inspect", "--raw", f"{tag}@{digest}"))
    if answer.returncode == 0 and manifest.attestations(json.loads(answer.stdout)):
        raise BuildFailed(f"{tag} was pushed {_WITH_ATTESTATIONS}.\nTIP {_CHECK_BUILDX}")
