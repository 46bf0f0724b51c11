"""How layers are compressed: the names in media types."""

from __future__ import annotations

import pytest

from prefect_docker_attest.layer_compression import named_in

OCI, DOCKER = "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (OCI, "uncompressed"),
        (f"{OCI}+gzip", "gzip"),
        (f"{OCI}+zstd", "zstd"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"),
        (f"{OCI}+gzip+encrypted", "gzip"),
        (f"{OCI}+encrypted", "uncompressed"),
        (f"{OCI}+zstd+gzip", None),
        (f"{OCI}+lz4", None),
        (DOCKER, "uncompressed"),
        (f"{DOCKER}.gzip", "gzip"),
        (f"{DOCKER}.zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
        (f"{DOCKER}.gzip.zstd", None),
        (".tar", None),
        ("application/octet-stream", None),
        ("", None),
    ],
)
def test_a_media_type_names_a_compression(media_type: str, compression: str | None) -> None:
    assert named_in(media_type) == compression
