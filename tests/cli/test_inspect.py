"""`prefect-docker-attest inspect`, on a real registry and on engines of both image stores."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest

from engines.published import Published
from prefect_docker_attest.images import manifest
from support.names import BUSYBOX
from support.pushing import (
    LAYER,
    MANIFEST,
    delete_blob,
    descriptor,
    digest,
    push_blob,
    push_image,
    push_manifest,
    started_registry,
    tar_layer,
)

if TYPE_CHECKING:
    from engines.private import Engine, Registry
    from support.shipped import Images, Result, Run

INDEX, DOCKER_LIST = manifest.INDEX_KINDS
_, DOCKER_MANIFEST = manifest.MANIFEST_KINDS
SCANNER = Path(__file__).parent / "scanner"
PROVENANCE, SBOM = "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"


def only(result: Result) -> dict[str, Any]:
    (found,) = result.json["images"]
    return dict(found)


@pytest.mark.usefixtures("some_engine", "amd64")
def test_a_plain_image(run: Run, plain: str) -> None:
    result = run("inspect", plain, "--json", "--fail-on-attestations", "--fail-on-corruption")

    assert (result.code, result.err) == (0, "")
    found = only(result)
    assert found["source"] == f"registry {plain.partition('/')[0]}"
    assert found["media_type"] in manifest.MANIFEST_KINDS
    (image,) = found["images"]
    assert (image["digest"], image["platform"], image["state"]) == (found["digest"], "linux/amd64", "sound")
    assert (
        image["size"] == sum(layer["size"] for layer in image["layers"]) + Published(plain).manifest()["config"]["size"]
    )
    assert [layer["state"] for layer in image["layers"]] == ["sound"] * 3
    assert (found["attestations"], found["republish"]) == ([], None)
    assert "Single manifest without attestations." in run("inspect", plain).out


@pytest.mark.usefixtures("some_engine", "amd64")
def test_an_attested_image(run: Run, attested: str) -> None:
    result = run("inspect", attested, "--json")

    assert result.code == 0
    found = only(result)
    assert (found["media_type"], len(found["images"])) == (INDEX, 1)
    (attestation,) = found["attestations"]
    assert attestation["image"] == found["images"][0]["digest"]
    assert (attestation["platform"], attestation["predicate_types"]) == ("linux/amd64", [PROVENANCE])
    assert run("inspect", attested, "--fail-on-attestations").code == 1


@pytest.mark.usefixtures("some_engine")
def test_sbom_and_provenance_are_distinguished(run: Run, images: Images, builder: Engine) -> None:
    scanner = f"{images.registry.address}/cli/scanner:v1"
    base = f"--build-context=busybox=docker-image://{BUSYBOX}"
    builder.run("docker", "buildx", "build", "--load", "--provenance=false", base, f"--tag={scanner}", str(SCANNER))
    builder.run("docker", "push", scanner)
    name = images.push(builder, f"--attest=type=sbom,generator={scanner}")
    result = run("inspect", name)

    assert "SBOM, provenance" in result.text
    assert f"{SBOM}, {PROVENANCE}" in result.text


@pytest.mark.usefixtures("some_engine", "amd64")
def test_the_suggested_command_publishes_a_single_manifest(run: Run, attested: str) -> None:
    result = run("inspect", attested)
    command = result.out.strip().splitlines()[-1]

    assert not Published(attested).is_one_manifest
    assert run(*shlex.split(command)[1:]).code == 0
    assert Published(attested).is_one_manifest
    after = run("inspect", attested, "--json", "--fail-on-attestations", "--fail-on-corruption")
    assert (after.code, only(after)["images"][0]["platform"]) == (0, "linux/amd64")


@pytest.mark.usefixtures("some_engine")
def test_the_suggested_command_for_several_platforms_publishes_an_index_of_images(
    run: Run, images: Images, builder: Engine
) -> None:
    name = images.push(builder, "--platform=linux/amd64,linux/arm64")
    assert Published(name).platforms() == ["linux/amd64", "linux/arm64", "unknown/unknown", "unknown/unknown"]
    result = run("inspect", name, "--json", "--verify-layers")
    assert [attestation["platform"] for attestation in only(result)["attestations"]] == ["linux/amd64", "linux/arm64"]
    assert run(*shlex.split(only(result)["republish"])[1:]).code == 0

    assert Published(name).platforms() == ["linux/amd64", "linux/arm64"]
    assert run("inspect", name, "--fail-on-attestations", "--fail-on-corruption").code == 0


@pytest.mark.usefixtures("amd64")
def test_the_corruption_of_issue_19337(run: Run, registry: Registry, images: Images, containerd_engine: Engine) -> None:
    name = f"{registry.address}/cli/corrupt:v1"
    containerd_engine.run("docker", "pull", BUSYBOX)
    client = docker.from_env()
    list(client.api.build(path=str(images.context), tag=name, platform="linux/arm64"))
    containerd_engine.run("docker", "push", name)

    result = run("inspect", name, "--verify-layers", "--json")
    (image,) = only(result)["images"]
    assert (result.code, image["state"], image["platform"]) == (0, "corrupt", "linux/arm64/v8")
    assert [layer["state"] for layer in image["layers"]] == ["corrupt", "corrupt", "sound"]
    assert run("inspect", name, "--fail-on-corruption").code == 1
    assert "Corrupt: clusters refuse this image" in run("inspect", "--engine", name, "--verify-layers").text
    assert run("inspect", name).code == 0


@pytest.mark.usefixtures("amd64")
def test_an_image_in_the_engine(run: Run, images: Images, engine: Engine) -> None:
    name = images.build(engine)  # the image is not pushed
    result = run("inspect", name, "--engine", "--json", "--fail-on-corruption")

    found = only(result)
    assert (result.code, found["state"], found["images"][0]["platform"]) == (0, "sound", "linux/amd64")
    assert found["source"].startswith("engine ")
    kinds = [attestation["predicate_types"] for attestation in found["attestations"]]
    # The graphdriver store keeps neither manifests nor attestations.
    assert kinds == ([[PROVENANCE]] if engine.store == "containerd" else [])
    identifier = engine.run("docker", "image", "inspect", "--format={{.Id}}", name).stdout.strip()
    assert only(run("inspect", identifier, "--engine", "--json"))["digest"] == found["digest"]
    refused = run("inspect", name)
    assert refused.code == 3
    assert f"answers 404 Not Found (manifest unknown) for {name.partition('/')[2]}" in refused.err
    assert "To inspect an image in the Docker Engine, add --engine." in refused.err


@pytest.mark.usefixtures("amd64")
def test_a_platform_that_the_engine_did_not_pull(run: Run, registry: Registry, containerd_engine: Engine) -> None:
    repository = f"http://{registry.address}/v2/cli/partly"
    entries = [
        {**push_image(repository, tar_layer(name)), "platform": {"os": "linux", "architecture": name}}
        for name in ("amd64", "arm64")
    ]
    push_manifest(repository, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, "v1")
    name = f"{registry.address}/cli/partly:v1"
    containerd_engine.run("docker", "pull", "--platform=linux/amd64", name)
    result = run("inspect", name, "--engine", "--json", "--verify-layers")

    assert result.code == 0
    states = {image["platform"]: image["state"] for image in only(result)["images"]}
    assert states == {"linux/amd64": "sound", "linux/arm64": "unverifiable"}
    assert run("inspect", name, "--engine", "--fail-on-corruption").code == 1


def test_the_list_of_an_engine_matches_its_export(
    run: Run, images: Images, builder: Engine, containerd_engine: Engine
) -> None:
    """Since API 1.48 an image is only exported if layers are verified."""
    name = images.build(builder, "--platform=linux/amd64,linux/arm64")
    listed = only(run("inspect", name, "--engine", "--json"))
    exported = only(run("inspect", name, "--engine", "--json", "--verify-layers"))

    assert [listed[key] for key in ("digest", "media_type", "source", "others")] == [
        exported[key] for key in ("digest", "media_type", "source", "others")
    ]
    for key in ("digest", "media_type", "platform", "size"):
        assert [image[key] for image in listed["images"]] == [image[key] for image in exported["images"]]
    for key in ("digest", "media_type", "image", "platform"):
        assert [found[key] for found in listed["attestations"]] == [found[key] for found in exported["attestations"]]
    assert run("inspect", name, "--engine", "--fail-on-attestations").code == 1
    api = docker.from_env().version()["ApiVersion"]
    assert (listed["images"][0]["layers"] == []) is (tuple(map(int, api.split("."))) >= (1, 48)), containerd_engine


@pytest.mark.parametrize("name", ["../../info", "x?y=z", "x#y", "sha256:" + "0" * 64, "\x1b[31m", "ü", "", "-x"])
def test_names_that_an_engine_does_not_know(run: Run, engine: Engine, name: str) -> None:
    result = run("inspect", "--engine", "--json", "--", name)

    assert (result.code, len(result.json["errors"])) == (3, 1), engine.store
    assert "bug" not in result.err


def test_a_missing_engine_has_a_tip(run: Run) -> None:
    result = run("inspect", "--engine", "busybox", DOCKER_HOST="unix:///nonexistent/docker.sock")

    assert result.code == 3
    assert "Check it with `docker info`." in result.err


@pytest.mark.usefixtures("some_engine")
def test_a_docker_list_in_an_index(run: Run, registry: Registry) -> None:
    repository = f"http://{registry.address}/v2/cli/nested"
    one, other = (push_image(repository, tar_layer(name), media_type=DOCKER_MANIFEST) for name in ("one", "other"))
    platforms = ({"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"})
    entries = [{**one, "platform": platforms[0]}, {**other, "platform": platforms[1]}]
    inner = push_manifest(repository, {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries})
    alien = descriptor("application/vnd.example", push_blob(repository, b"anything"))
    outer = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner, alien]}
    push_manifest(repository, outer, "v1")
    result = run("inspect", f"{registry.address}/cli/nested:v1", "--json", "--fail-on-corruption")

    assert result.code == 0
    assert [image["platform"] for image in only(result)["images"]] == ["linux/amd64", "linux/arm64/v8"]
    assert only(result)["others"] == [alien["digest"]]


@pytest.mark.usefixtures("some_engine")
def test_an_image_whose_config_names_no_platform(run: Run, registry: Registry) -> None:
    push_image(f"http://{registry.address}/v2/cli/bare", tar_layer("bare"), tag="v1")
    result = run("inspect", f"{registry.address}/cli/bare:v1", "--fail-on-corruption")

    assert result.code == 0
    assert "unknown OCI sha256:" in result.text


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize(
    ("blob", "media_type", "seen"),
    [
        (b"\x1f\x8b\x08\x00 this is no gzip", LAYER, ("corrupt", "is damaged: it cannot be decompressed")),
        (b"ciphertext", f"{LAYER}+encrypted", ("unverifiable", "layer 1 is encrypted")),
    ],
)
def test_a_layer_that_no_engine_can_use(
    run: Run, registry: Registry, blob: bytes, media_type: str, seen: tuple[str, str]
) -> None:
    push_image(f"http://{registry.address}/v2/cli/layers", blob, layer={"mediaType": media_type}, tag="v1")
    result = run("inspect", f"{registry.address}/cli/layers:v1", "--json", "--fail-on-corruption")

    (image,) = only(result)["images"]
    assert (result.code, image["state"]) == (1, seen[0])
    assert seen[1] in image["detail"]


@pytest.mark.parametrize(
    ("layer", "seen"),
    [
        ({}, ("corrupt", "is damaged: the registry does not have it")),
        (
            {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "urls": ["https://x.org/y"]},
            ("unverifiable", "it is not in the registry, but at another address"),
        ),
    ],
)
def test_a_missing_layer(run: Run, program: str, tmp_path: Path, layer: dict[str, Any], seen: tuple[str, str]) -> None:
    blob = tar_layer("gone")
    with started_registry(program, tmp_path, validation={"manifests": {"urls": {"allow": [".*"]}}}) as address:
        repository = f"http://{address}/v2/gone"
        push_image(repository, blob, layer=layer, tag="v1")
        delete_blob(repository, digest(blob))
        result = run("inspect", f"{address}/gone:v1", "--json", "--verify-layers")

    (image,) = only(result)["images"]
    assert (result.code, image["state"]) == (0, seen[0])
    assert seen[1] in image["detail"]


@pytest.mark.usefixtures("some_engine")
def test_layers_in_zstd(run: Run, registry: Registry, images: Images, builder: Engine) -> None:
    name = f"{registry.address}/cli/zstd:v1"
    output = f"--output=type=image,name={name},push=true,compression=zstd,force-compression=true,oci-mediatypes=true"
    builder.run("docker", "buildx", "build", "--provenance=false", output, str(images.context))
    result = run("inspect", name, "--fail-on-corruption", "--json")

    (image,) = only(result)["images"]
    assert (result.code, image["state"]) == (0, "sound")
    assert {layer["media_type"] for layer in image["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}


@pytest.mark.usefixtures("some_engine")
def test_an_artifact_that_is_not_an_image_is_an_error(run: Run, registry: Registry) -> None:
    repository = f"http://{registry.address}/v2/cli/chart"
    config = descriptor("application/vnd.cncf.helm.config.v1+json", push_blob(repository, b"{}"))
    push_manifest(repository, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}, "v1")
    result = run("inspect", f"{registry.address}/cli/chart:v1")

    assert result.code == 3
    assert result.err.strip().endswith("is not a container image: it is a application/vnd.cncf.helm.config.v1+json.")


@pytest.mark.usefixtures("some_engine")
def test_one_bad_name_does_not_hide_the_others(run: Run, registry: Registry, plain: str) -> None:
    missing = f"{registry.address}/cli/nosuch:v1"
    result = run("inspect", missing, plain, "Not An Image", "127.0.0.1:1/x", "--json")

    assert (result.code, result.json["ok"]) == (3, False)
    assert only(result)["reference"] == plain
    assert [error["reference"] for error in result.json["errors"]] == [missing, "Not An Image", "127.0.0.1:1/x"]
    assert "Connection refused" in result.json["errors"][2]["error"]
    assert run("inspect", "--engine", "nosuch:v1").err.endswith(
        "has no image 'nosuch:v1'.\nTIP `docker images` lists its images.\n"
    )
    assert run("inspect").code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc of Linux")
@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("compresslevel", [0, 9])
def test_a_large_layer_is_read_with_limited_memory(run: Run, registry: Registry, compresslevel: int) -> None:
    size = 256 << 20
    layer = tar_layer("zeros", size, compresslevel)
    push_image(f"http://{registry.address}/v2/cli/large", layer, tag="v1")
    result = run("inspect", f"{registry.address}/cli/large:v1", "--fail-on-corruption")

    assert (result.code, result.err) == (0, "")
    assert result.peak < size / 2


@pytest.mark.usefixtures("containerd_engine")
def test_the_compression_of_each_layer(run: Run, images: Images, builder: Engine) -> None:
    (images.context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /new\nCOPY Dockerfile /\n")
    name = images.build(builder, "--provenance=false", "--output=type=docker,oci-mediatypes=true,compression=zstd")
    builder.run("docker", "push", name)
    gzip = images.push(builder, "--provenance=false")

    mixed = run("inspect", name, "--fail-on-compression", "zstd")
    assert (mixed.code, mixed.err) == (1, "")
    assert "gzip 1-2, zstd 3-4 none" in mixed.text
    assert "has layers with the compression zstd." in mixed.text
    for flags in (["--verify-layers"], ["--engine"]):
        passes = run("inspect", name, "--json", "--fail-on-compression=uncompressed", *flags)
        methods = [layer["compression"] for layer in only(passes)["images"][0]["layers"]]
        assert (passes.code, methods) == (0, ["gzip", "gzip", "zstd", "zstd"])
    assert run("inspect", gzip, "--fail-on-compression=zstd", "--fail-on-compression=uncompressed").code == 0
    assert run("inspect", gzip, "--fail-on-compression=gzip").code == 1


def test_a_compression_that_no_media_type_names(run: Run, registry: Registry) -> None:
    repository = f"http://{registry.address}/v2/cli/compression"
    layer = tar_layer("x")
    push_image(repository, layer, layer={"mediaType": "application/vnd.oci.image.layer.v1.tar+lz4"}, tag="v1")
    name = f"{registry.address}/cli/compression:v1"
    unknown = run("inspect", name, "--fail-on-compression=zstd")
    assert unknown.code == 1
    assert "has layers with the compression unknown." in unknown.text
    # What engines see is the content.
    assert run("inspect", name, "--fail-on-compression=zstd", "--verify-layers").code == 0
