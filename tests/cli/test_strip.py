"""`prefect-docker-attest strip`, on real registries."""

from __future__ import annotations

import json
import shlex
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from engines.published import Published
from prefect_docker_attest.cli import main
from prefect_docker_attest.images import http, retrying
from support.attested import DOCKER_LIST, DOCKER_MANIFEST, INDEX, publish
from support.pushing import (
    MANIFEST,
    descriptor,
    push_blob,
    push_manifest,
    started_registry,
    tar_layer,
)
from support.registry_proxy import Fault, RegistryProxy, registry_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import Engine
    from support.attested import Attested
    from support.shipped import Run

AMD64, BOTH = ("amd64",), ("amd64", "arm64")
IMMUTABLE = Fault(
    400,
    json.dumps(
        {"errors": [{"message": "The image tag 'v1' already exists in the 'x' repository and cannot be overwritten"}]}
    ).encode(),
)


@pytest.fixture(scope="module")
def address(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started_registry(registry_program, tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def proxy(address: str) -> Iterator[RegistryProxy]:
    with registry_proxy(address) as proxy:
        yield proxy


@pytest.fixture
def name() -> str:
    """The name of a repository that no other test uses."""
    return f"strip/{uuid4().hex[:8]}"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait, if the registry names no time."""
    monkeypatch.setattr(retrying, "_PAUSES", (0, 0, 0))
    monkeypatch.setattr(retrying, "_SPREAD", 0)


def strip(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    result = CliRunner().invoke(main, ["strip", *arguments])
    assert "Traceback" not in result.output
    assert "bug" not in result.output
    return result.exit_code, result.output


def stripped(*arguments: str) -> dict[str, Any]:
    """Run the command for one image; return its JSON object."""
    code, output = strip("--json", *arguments)
    assert code == 0, output
    (image,) = json.loads(output)["images"]
    return dict(image)


def failed(*arguments: str) -> str:
    """Run the command for one image that must not be written; return the error."""
    before = Published(arguments[-1]).digest()
    code, output = strip(*arguments)
    assert code == 3
    assert Published(arguments[-1]).digest() == before
    return " ".join(output.split())


@pytest.mark.parametrize("artifacts", [False, True], ids=["inline", "artifacts"])
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_the_tag_of_one_platform_names_its_manifest(address: str, name: str, docker: bool, artifacts: bool) -> None:
    attested = publish(address, name, *AMD64, docker=docker, artifacts=artifacts)
    (image,), (attestation,) = attested.images, attested.attestations
    found = stripped(attested.name)

    assert Published(attested.name).digest() == image["digest"]
    assert Published(attested.name).manifest()["mediaType"] == (DOCKER_MANIFEST if docker else MANIFEST)
    assert (found["old_digest"], found["new_digest"], found["written"]) == (attested.digest, image["digest"], True)
    assert (found["removed"], found["target"]) == ([attestation["digest"]], attested.name)
    assert found["referrers"] == ([attestation["digest"]] if artifacts else [])
    assert found["restore"] == f"prefect-docker-attest strip --restore {attested.name}@{attested.digest}"


@pytest.mark.parametrize("artifacts", [False, True], ids=["inline", "artifacts"])
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_the_tag_of_several_platforms_names_an_index_of_the_images(
    address: str, name: str, docker: bool, artifacts: bool
) -> None:
    attested = publish(address, name, *BOTH, docker=docker, artifacts=artifacts)
    old = Published(attested.name).manifest()
    found = stripped(attested.name)

    new = Published(attested.name).manifest()
    assert new["mediaType"] == (DOCKER_LIST if docker else INDEX)
    assert new == {**old, "manifests": attested.images}
    assert found["new_digest"] == Published(attested.name).digest()
    assert len(found["removed"]) == 2


def test_text_shows_digests_and_what_follows(address: str, name: str) -> None:
    attested = publish(address, name, *BOTH, artifacts=True)
    code, output = strip(attested.name)

    assert code == 0
    assert output.splitlines() == [
        attested.name,
        f"  The image has 2 attestations. {attested.name} was put on the image without them.",
        f"  old digest: {attested.digest}",
        f"  new digest: {Published(attested.name).digest()}",
        "  The layers were not checked. --verify-layers checks them.",
        "  Signatures of the old digest do not apply to the new one.",
        "  Registries with the referrers API still list attestations of these images (with a `subject`: 2).",
        "  This command puts the tag back:",
        "",
        f"prefect-docker-attest strip --restore {attested.name}@{attested.digest}",
        "",
    ]


def test_the_printed_command_puts_the_tag_back(address: str, name: str) -> None:
    attested = publish(address, name, *BOTH)
    command = shlex.split(stripped(attested.name)["restore"])
    assert strip(*command[2:], "--dry-run")[0] == 0
    assert Published(attested.name).digest() != attested.digest
    code, output = strip(*command[2:])

    assert (code, f"{attested.name} was put back." in output) == (0, True)
    assert Published(attested.name).digest() == attested.digest
    assert f"{attested.name} was not written." in strip(*command[2:])[1]


def test_an_image_without_attestations_is_not_written(proxy: RegistryProxy, name: str) -> None:
    attested = publish(proxy.address, name, *BOTH)
    assert stripped(attested.name)["written"]
    writes = proxy.count("PUT")
    again = stripped(attested.name)

    assert (again["written"], again["removed"], again["restore"]) == (False, [], None)
    assert again["old_digest"] == again["new_digest"] == Published(attested.name).digest()
    assert "The image has no attestations." in strip(attested.name)[1]
    assert proxy.count("PUT") == writes


def test_another_tag_leaves_the_image_alone(proxy: RegistryProxy, name: str) -> None:
    attested = publish(proxy.address, name, *AMD64)
    found = stripped("--tag", "plain", attested.name)
    target = f"{proxy.address}/{name}:plain"

    assert (found["target"], found["replaced"], found["restore"]) == (target, None, None)
    assert Published(attested.name).digest() == attested.digest
    assert Published(target).digest() == attested.images[0]["digest"]
    # The result is the same, so there is nothing to write.
    writes = proxy.count("PUT")
    assert not stripped("--tag", "plain", f"{proxy.address}/{name}@{attested.digest}")["written"]
    assert proxy.count("PUT") == writes
    # An image without attestations gets the tag too, and an older image can get it back.
    other = publish(proxy.address, name, "arm64", tag="other")
    found = stripped("--tag", "plain", f"{proxy.address}/{name}@{other.digest}")
    assert found["restore"] == f"prefect-docker-attest strip --restore {target}@{attested.images[0]['digest']}"
    assert stripped("--tag", "copy", target)["removed"] == []
    assert Published(f"{proxy.address}/{name}:copy").digest() == other.images[0]["digest"]


def test_a_dry_run_writes_nothing(proxy: RegistryProxy, name: str) -> None:
    attested = publish(proxy.address, name, *BOTH)
    writes = proxy.count("PUT")
    found = stripped("--dry-run", attested.name)

    assert (found["written"], len(found["removed"]), found["restore"]) == (False, 2, None)
    assert proxy.count("PUT") == writes
    assert stripped(attested.name)["new_digest"] == found["new_digest"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x/app:v1@sha256:" + "0" * 64], "A name with a digest needs --tag NEW."),
        (["--restore", "x/app:v1"], "--restore needs NAME:TAG@sha256:DIGEST"),
        (["--restore", "x:5000/app@sha256:" + "0" * 64], "--restore needs NAME:TAG@sha256:DIGEST"),
        (["--restore", "--tag=v2", "x/app:v1@sha256:" + "0" * 64], "--restore needs NAME:TAG@sha256:DIGEST"),
        (["--tag=v 2", "x/app:v1"], "'v 2' is not a tag."),
        (["--tag=v3", "x:5000/app:v1", "x:5000/app:v2"], "--tag NEW cannot name several images of one repository."),
        ([], "IMAGE..."),
    ],
)
def test_wrong_usage(arguments: list[str], problem: str) -> None:
    code, output = strip(*arguments)
    assert code == 2
    assert problem in output


def test_nested_indexes(address: str, name: str) -> None:
    def entry(attested: Attested) -> dict[str, Any]:
        content = json.dumps(Published(attested.name).manifest()).encode()
        return {**descriptor(INDEX, content), "annotations": {"org.example.part": attested.name}}

    plain = publish(address, name, "amd64", tag="plain", attested=False)
    with_data = {**entry(publish(address, name, "arm64", tag="attested")), "data": "e30="}
    alone = publish(address, name, "ppc64le", tag="alone")
    only = push_manifest(
        f"http://{address}/v2/{name}", {"schemaVersion": 2, "mediaType": INDEX, "manifests": alone.attestations}
    )
    chart = push_manifest(
        f"http://{address}/v2/{name}",
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.example", push_blob(f"http://{address}/v2/{name}", b"{}")),
            "layers": [],
        },
    )
    outer = publish(address, name, "s390x", tag="outer", others=(entry(plain), with_data, only, chart))
    found = stripped(outer.name)

    (image, first, second) = Published(outer.name).manifest()["manifests"]
    assert (image, first) == (outer.images[0], entry(plain))
    assert second["annotations"] == with_data["annotations"]
    assert "data" not in second
    assert [e["platform"]["architecture"] for e in Published(outer.name).manifest(second["digest"])["manifests"]] == [
        "arm64"
    ]
    assert found["others"] == [chart["digest"]]
    assert len(found["removed"]) == 3
    assert stripped(outer.name)["written"] is False


def test_an_index_whose_members_differ_in_case_is_not_written_again(address: str, name: str) -> None:
    attested = publish(address, name, *BOTH)
    document = Published(attested.name).manifest()
    document["manifests"][0]["Annotations"] = {}
    push_manifest(f"http://{address}/v2/{name}", document, "v1")

    assert "has members with unusual names or characters" in failed(attested.name)


def test_a_corrupt_image_is_not_written(address: str, name: str) -> None:
    attested = publish(address, name, *AMD64, layer=b"this is no gzip")
    code, output = strip("--verify-layers", attested.name)
    assert code == 1
    assert "linux/amd64 is corrupt: layer 1" in output
    assert "Nothing was written." in output
    assert Published(attested.name).digest() == attested.digest
    # Documents are always compared.
    index = Published(attested.name).manifest()
    index["manifests"][0]["size"] += 1
    push_manifest(f"http://{address}/v2/{name}", index, "wrong")
    code, output = strip(f"{address}/{name}:wrong")
    assert (code, "but its descriptor says" in output) == (1, True)


def test_verified_layers(address: str, name: str) -> None:
    attested = publish(address, name, *AMD64)
    code, output = strip("--verify-layers", attested.name)

    assert (code, "The layers were not checked" in output) == (0, False)
    assert Published(attested.name).digest() == attested.images[0]["digest"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_tag_that_moves_meanwhile(proxy: RegistryProxy, name: str, when: str) -> None:
    attested = publish(proxy.address, name, *BOTH)
    other = publish(proxy.registry, name, "arm64", tag="other")
    document = Published(other.name).manifest()

    def move(method: str, path: str) -> None:
        reads = proxy.count("GET", "/manifests/v1")
        if method == "GET" and path.endswith("/manifests/v1") and reads == (1 if when == "before" else 2):
            push_manifest(f"http://{proxy.registry}/v2/{name}", document, "v1")

    proxy.fault = move
    code, output = strip(attested.name)

    assert code == 3
    assert Published(attested.name).digest() == other.digest
    assert f"{other.digest} " in output
    moved = "was moved after it had been read: it names" if when == "before" else f"but names {other.digest} now"
    assert moved in output


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, headers={"Retry-After": "0"}),
        Fault(500),
        Fault(502, b"<html>Bad Gateway</html>"),
        Fault(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Fault(),
        Fault(forwards=True),
    ],
    ids=["429", "500", "502", "503", "reset", "answer lost"],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_faults_that_pass(proxy: RegistryProxy, name: str, method: str, fault: Fault) -> None:
    attested = publish(proxy.address, name, *BOTH)
    proxy.fail(method, "/manifests/v1", fault, fault, fault)
    writes = proxy.count("PUT")

    assert stripped(attested.name)["written"]
    assert proxy.count("PUT") == writes + (4 if method == "PUT" else 1)


def test_a_retry_waits_as_long_as_the_registry_asks(
    proxy: RegistryProxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("prefect_docker_attest.images.retrying.sleep", waited.append)
    attested = publish(proxy.address, name, *AMD64)
    proxy.fail("PUT", "/manifests/v1", Fault(429, headers={"Retry-After": "7"}), Fault(503))
    assert stripped(attested.name)["written"]
    assert waited[0] == 7
    assert 3 <= waited[1] < 4
    # A registry that asks for more than 30 seconds is not asked again.
    attested = publish(proxy.address, name, *AMD64)
    proxy.fail("PUT", "/manifests/v1", Fault(429, headers={"Retry-After": "31"}))
    assert "answers 429" in failed(attested.name)
    assert len(waited) == 2


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("fault", "attempts", "words"),
    [
        (Fault(502), 4, ["answers 502 Bad Gateway for ", "TIP Try again later."]),
        (Fault(), 4, ["cannot be written at", "TIP Check the image's name, the network"]),
        (Fault(403), 1, ["Your credentials do not allow writing it.", "with an account that can push."]),
        (
            IMMUTABLE,
            1,
            ["cannot be overwritten) for ", "The tag was not moved.", "TIP Write another tag: `--tag NEW`."],
        ),
        (Fault(400, b'{"errors": [{"message": "OCI index is not supported"}]}'), 1, ["(OCI index is not supported)"]),
        (Fault(404, b'{"errors": [{"message": "manifest unknown"}]}'), 1, ["404 Not Found (manifest unknown)"]),
        (Fault(200, b"<html>Sign in</html>", {"content-type": "text/html"}), 1, ["answers with a page for"]),
        (Fault(201), 1, ["was put on sha256:", "TIP Another program may have moved it."]),
    ],
    ids=["502", "reset", "forbidden", "immutable", "refused", "unknown", "HTML", "ignored"],
)
def test_faults_that_stay(proxy: RegistryProxy, name: str, fault: Fault, attempts: int, words: list[str]) -> None:
    attested = publish(proxy.address, name, *BOTH)
    writes = proxy.count("PUT")
    proxy.fail("PUT", "/manifests/v1", *[fault] * 9)
    error = failed(attested.name)

    assert [text for text in words if text not in error] == []
    assert proxy.count("PUT") == writes + attempts
    if attempts == 1 and fault is not IMMUTABLE:
        assert "again later" not in error


@pytest.mark.usefixtures("at_once")
def test_an_answer_that_comes_too_late(proxy: RegistryProxy, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attested = publish(proxy.address, name, *AMD64)
    monkeypatch.setattr(http, "_READ_TIME", 2)
    released = threading.Event()
    stalled: list[str] = []

    def stall(method: str, path: str) -> None:
        if method == "PUT" and not stalled:
            stalled.append(path)
            released.wait()

    proxy.fault = stall
    assert stripped(attested.name)["written"]
    assert stalled == [f"{name}/manifests/v1"]
    released.set()


@pytest.mark.usefixtures("at_once")
def test_an_immutable_tag_whose_first_answer_was_lost_is_written(proxy: RegistryProxy, name: str) -> None:
    attested = publish(proxy.address, name, *BOTH)
    proxy.fail("PUT", "/manifests/new", Fault(502, forwards=True), IMMUTABLE)
    assert stripped("--tag", "new", attested.name)["written"]


@pytest.mark.parametrize(
    "answer",
    [Fault(200, b"<html>Sign in</html>", {"content-type": "text/html"}), Fault(200, b"x" * (5 << 20)), Fault(404)],
    ids=["HTML", "long", "404"],
)
def test_an_image_that_cannot_be_read(proxy: RegistryProxy, name: str, answer: Fault) -> None:
    attested = publish(proxy.address, name, *AMD64)
    proxy.fault = lambda method, _path: answer if method == "GET" else None
    code, output = strip(attested.name)

    assert code == 3
    assert "--engine" not in output
    proxy.fault = lambda _method, _path: None
    assert Published(attested.name).digest() == attested.digest


def test_faults_of_one_image_do_not_stop_the_others(proxy: RegistryProxy, name: str) -> None:
    good = publish(proxy.address, name, *AMD64)
    bad = publish(proxy.address, f"{name}-bad", *AMD64, layer=b"none")
    missing = f"{proxy.address}/{name}:missing"
    code, output = strip("--json", "--verify-layers", bad.name, missing, good.name)

    result = json.loads(output[output.index("{\n") :])
    assert (code, result["ok"]) == (1, False)
    assert [image["reference"] for image in result["images"]] == [good.name]
    assert [error["reference"] for error in result["errors"]] == [bad.name, missing]
    assert strip(missing, good.name)[0] == 3


def test_twenty_images_at_once(proxy: RegistryProxy, name: str) -> None:
    attested = publish(proxy.address, name, *BOTH)
    index = Published(attested.name).manifest()
    for number in range(20):
        push_manifest(f"http://{proxy.address}/v2/{name}", {**index, "annotations": {"n": f"{number}"}}, f"n{number}")
    names = [f"{proxy.address}/{name}:n{number}" for number in range(20)]
    proxy.fail("PUT", "/manifests/n", *[Fault(429, headers={"Retry-After": "0"})] * 5)
    code, output = strip("--json", *names)

    found = json.loads(output)["images"]
    assert code == 0
    assert [image["reference"] for image in found] == names
    assert len({image["new_digest"] for image in found}) == 20
    assert [Published(image).manifest()["manifests"] for image in names] == [attested.images] * 20


def test_requests_and_bytes_of_two_platforms(proxy: RegistryProxy, name: str) -> None:
    attested = publish(proxy.address, name, *BOTH, layer=tar_layer("large", 1 << 20, 0))
    proxy.requests.clear()
    assert stripped(attested.name)["written"]

    # The index three times, four manifests, two configs.
    assert (proxy.count("GET"), proxy.count("PUT"), len(proxy.requests)) == (9, 1, 10)
    assert sum(request.sent + request.received for request in proxy.requests) < 12_000


def test_a_registry_with_the_referrers_api(
    proxy: RegistryProxy, name: str, run: Run, containerd_engine: Engine
) -> None:
    proxy.has_referrers = True
    attested = publish(proxy.address, name, *BOTH, artifacts=True)
    command = run("inspect", attested.name, "--json").json["images"][0]["republish"]
    assert command == f"prefect-docker-attest strip {attested.name}"
    result = run(*shlex.split(command)[1:])

    assert (result.code, result.err) == (0, "")
    assert "Registries with the referrers API still list attestations" in result.text
    after = run("inspect", attested.name, "--json", "--fail-on-attestations", "--fail-on-corruption")
    assert (after.code, after.json["images"][0]["republish"]) == (0, None)
    assert [image["digest"] for image in after.json["images"][0]["images"]] == [e["digest"] for e in attested.images]
    for platform in ("linux/amd64", "linux/arm64"):
        containerd_engine.run("docker", "pull", f"--platform={platform}", attested.name)
    containerd_engine.run("docker", "image", "rm", attested.name)


def test_a_stripped_image_of_one_platform_is_pulled(name: str, address: str, containerd_engine: Engine) -> None:
    attested = publish(address, name, *AMD64, docker=True)
    stripped(attested.name)
    containerd_engine.run("docker", "pull", "--platform=linux/amd64", attested.name)
    containerd_engine.run("docker", "image", "rm", attested.name)
