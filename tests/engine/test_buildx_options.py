"""Options that docker-py does not know: what they do, with the setting off and on."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import docker_client

from both_builders import Failed, build
from prefect_docker_attest.errors import OptionError
from published import Published

if TYPE_CHECKING:
    from collections.abc import Iterator

    from private_docker import Engine, PrivateDocker, Registry

CONTEXTS = Path(__file__).parents[1] / "contexts"
UNIQUE = str(CONTEXTS / "unique")
PLATFORMS = ["linux/amd64", "linux/arm64"]

off_and_on = pytest.mark.parametrize("on", [False, True], ids=["off", "on"])


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/options/{uuid4()}:1"


def pushed(name: str) -> Published:
    """What comes of docker-py's push, which is Prefect's."""
    with docker_client() as client:
        for event in client.api.push(name, stream=True, decode=True):
            assert "error" not in event, event
    return Published(name)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "prefect_docker_attest"]


@pytest.fixture(scope="module")
def scanner(private_docker: PrivateDocker) -> str:
    """An image that BuildKit can make SBOMs with; its own one is out of reach."""
    name = f"{private_docker.registry.address}/options/scanner:1"
    engine = private_docker.engines["containerd"]
    folder = Path(__file__).parents[1] / "cli/scanner"
    engine.run("docker", "buildx", "build", "--load", "--provenance=false", f"--tag={name}", str(folder))
    engine.run("docker", "push", name)
    return name


# What an image may ask for, and the kinds of attestations that it then has.
ATTESTATIONS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "provenance": ({"provenance": True}, {"slsa.dev"}),
    "provenance as text": ({"provenance": "mode=max"}, {"slsa.dev"}),
    "provenance as mapping": ({"provenance": {"mode": "max"}}, {"slsa.dev"}),
    "sbom": ({"sbom": {"generator": "SCANNER"}, "provenance": False}, {"spdx.dev"}),
    "attest": ({"attest": [{"type": "sbom", "generator": "SCANNER"}, "type=provenance"]}, {"slsa.dev", "spdx.dev"}),
}


def asking(name: str, scanner: str) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(json.dumps(ATTESTATIONS[name][0]).replace("SCANNER", scanner))
    return options


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize("asked", ATTESTATIONS)
def test_attestations_that_are_wanted_are_in_the_registry(asked: str, name: str, scanner: str) -> None:
    build(switched_on=False, path=UNIQUE, tag=name, **asking(asked, scanner))
    image = pushed(name)
    assert image.platforms() == ["linux/amd64", "unknown/unknown"]
    attestations = image.manifest(image.manifest()["manifests"][1]["digest"])["layers"]
    kinds = [layer["annotations"]["in-toto.io/predicate-type"] for layer in attestations]
    assert {kind.split("/")[2] for kind in kinds} == ATTESTATIONS[asked][1]


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize("asked", ATTESTATIONS)
def test_switched_on_they_are_overruled_with_one_warning(
    asked: str, name: str, scanner: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = asking(asked, scanner)
    build(switched_on=True, path=UNIQUE, tag=name, **options)
    assert pushed(name).is_one_manifest
    (said,) = warnings(caplog)
    assert said.startswith("PREFECT_DOCKER_DISABLE_ATTESTATIONS overrules ")
    assert all(f"{option}=" in said for option, value in options.items() if value)


@pytest.mark.usefixtures("graphdriver_engine")
@pytest.mark.parametrize("asked", ATTESTATIONS)
def test_where_there_is_no_place_for_them_an_error_says_what_to_do(asked: str, scanner: str) -> None:
    with pytest.raises(Failed, match="Attestations need the containerd image store"):
        build(switched_on=False, path=UNIQUE, **asking(asked, scanner))


@pytest.mark.usefixtures("containerd_engine")
def test_an_sbom_by_the_scanner_that_is_out_of_reach_fails_with_its_name() -> None:
    with pytest.raises(Failed, match="buildkit-syft-scanner"):
        build(switched_on=False, path=UNIQUE, sbom=True)


@pytest.mark.parametrize(("on", "how"), [(False, "env=A_TOKEN"), (True, "src={file}"), (True, "mapping")])
@pytest.mark.usefixtures("engine")
def test_a_secret_is_used_and_left_out_of_the_image(
    on: bool, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"s3cret-{uuid4()}"
    monkeypatch.setenv("A_TOKEN", secret)
    (tmp_path / "file, with comma").write_text(secret)
    file = str(tmp_path / "file, with comma")
    given: Any = {"id": "token", "src": file} if how == "mapping" else f'id=token,"{how}"'.format(file=file)

    built = build(switched_on=on, path=str(CONTEXTS / "secret"), secrets=[given])
    assert hashlib.sha256(secret.encode()).hexdigest() in built.holds["/seen"]
    assert secret not in json.dumps(built.events)
    with docker_client() as client:
        exported = b"".join(client.api.get_image(built.image))
        history = json.dumps(client.api.history(built.image))  # type: ignore[no-untyped-call]
    assert secret not in history
    with tarfile.open(fileobj=BytesIO(exported)) as archive:
        contents = [found.read() for member in archive if (found := archive.extractfile(member))]
    layers = [gzip.decompress(one) if one.startswith(b"\x1f\x8b") else one for one in contents]
    assert any(hashlib.sha256(secret.encode()).hexdigest().encode() in one for one in layers)  # they can be searched
    assert not any(secret.encode() in one for one in layers)


@pytest.fixture
def fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The fingerprint of a key of an agent that runs for this test."""
    key, socket = str(tmp_path / "key"), str(tmp_path / "agent")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(socket):
            assert agent.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        subprocess.run(["ssh-add", "-q", key], check=True)
        said = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True).stdout
        yield said.split()[1]
    finally:
        agent.terminate()
        agent.wait()


@off_and_on
@pytest.mark.usefixtures("engine")
def test_keys_of_an_agent_are_seen_by_a_step(on: bool, fingerprint: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    shutil.copytree(CONTEXTS / "keys", context)
    program = shutil.which("ssh-add")
    assert program
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
    for file in (program, *(word for word in libraries if word.startswith("/"))):
        shutil.copy(file, context)

    built = build(switched_on=on, path=str(context), ssh="default")
    assert fingerprint in built.holds["/seen"]


CACHES = {"local": "type=local,{}={folder}", "registry": "type=registry,ref={registry}/options/cache-{id}:1"}


def forget(engine: Engine) -> None:
    engine.run("docker", "buildx", "prune", "--all", "--force")


@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_is_written_and_read(kind: str, containerd_engine: Engine, registry: Registry, tmp_path: Path) -> None:
    here = {"folder": tmp_path / "cache", "registry": registry.address, "id": uuid4()}
    first = build(switched_on=True, path=UNIQUE, cache_to=CACHES[kind].format("dest", **here))
    forget(containerd_engine)
    other = build(switched_on=True, path=UNIQUE, nocache=False)
    forget(containerd_engine)
    again = build(switched_on=True, path=UNIQUE, nocache=False, cache_from=[CACHES[kind].format("src", **here)])
    assert again.holds["/unique"] == first.holds["/unique"] != other.holds["/unique"]


def test_a_cache_in_the_image_is_read_by_its_name(engine: Engine, name: str, caplog: pytest.LogCaptureFixture) -> None:
    first = build(switched_on=True, path=UNIQUE, cache_to="type=inline", tag=name)
    pushed(name)
    forget(engine)
    again = build(switched_on=True, path=UNIQUE, nocache=False, cache_from=[name])
    assert again.holds["/unique"] == first.holds["/unique"]
    (said,) = warnings(caplog)
    assert name in said


@pytest.mark.usefixtures("graphdriver_engine")
def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"(?s)Cache export is not supported .* containerd image store"):
        build(switched_on=True, path=UNIQUE, cache_to={"type": "local", "dest": str(tmp_path)})


@off_and_on
@pytest.mark.usefixtures("containerd_engine")
def test_other_contexts(on: bool) -> None:
    contexts = {
        "folder": str(CONTEXTS / "nested/src"),
        "image": "docker-image://busybox",
        "base": "docker-image://busybox",
    }
    built = build(switched_on=on, path=str(CONTEXTS / "other-contexts"), build_contexts=contexts)
    assert "'x\\n'" in built.holds["/folder.txt"]
    assert "busybox for amd64" in built.holds["/image.txt"]


@off_and_on
@pytest.mark.parametrize("given", [{"platforms": PLATFORMS}, {"platform": ",".join(PLATFORMS)}], ids=["list", "commas"])
def test_several_platforms_are_loaded_and_pushed(
    on: bool, given: dict[str, Any], containerd_engine: Engine, name: str
) -> None:
    build(switched_on=on, path=UNIQUE, tag=name, **given)
    image = pushed(name)
    attestations = [] if on else ["unknown/unknown"] * 2
    assert image.platforms() == [*PLATFORMS, *attestations]
    run = ("docker", "run", "--rm", "--platform=linux/arm64", name, "uname", "-m")
    assert containerd_engine.run(*run).stdout == "aarch64\n"


@pytest.mark.usefixtures("graphdriver_engine")
def test_several_platforms_without_a_place_for_them_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(Failed, match="Several platforms need the containerd image store"):
        build(switched_on=True, path=UNIQUE, platforms=PLATFORMS)


@pytest.fixture
def buildx_that_attests(containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A plugin that heeds neither flag nor variable, as buildx 0.10.0 did not."""
    plugin = Path(containerd_engine.environment["DOCKER_CONFIG"]) / "cli-plugins/docker-buildx"
    ours = tmp_path / "cli-plugins/docker-buildx"
    ours.parent.mkdir()
    ours.write_text(
        "#!/bin/sh\nunset BUILDX_NO_DEFAULT_ATTESTATIONS\nfor one; do shift; case $one in "
        f'--provenance=* | --sbom=*) ;; *) set -- "$@" "$one" ;; esac; done\nexec {plugin} "$@"\n'
    )
    ours.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return containerd_engine


@pytest.mark.usefixtures("buildx_that_attests")
@pytest.mark.parametrize("platforms", [PLATFORMS[:1], PLATFORMS], ids=len)
def test_attestations_against_the_wish_are_an_error(platforms: list[str], private_docker: PrivateDocker) -> None:
    if len(platforms) > 1 and int(private_docker.docker_version.split(".")[0]) < 28:
        # That engine does not tell what is in an index, and nothing is claimed.
        assert build(switched_on=True, path=UNIQUE, platforms=platforms)
        return
    with pytest.raises(Failed, match="built with attestations, although they are off"):
        build(switched_on=True, path=UNIQUE, platforms=platforms)


@off_and_on
def test_annotations_are_in_the_registry(on: bool, engine: Engine, name: str) -> None:
    given = {"org.opencontainers.image.title": "a, b=c"}
    if engine.store == "graphdriver":
        with pytest.raises(OptionError, match=r"^annotations .* containerd"):
            build(switched_on=on, path=UNIQUE, annotations=given)
        return
    build(switched_on=on, path=UNIQUE, tag=name, annotations=given, provenance=False)
    assert pushed(name).manifest()["annotations"] == given


@off_and_on
@pytest.mark.usefixtures("graphdriver_engine")
def test_a_builder_is_named(on: bool) -> None:
    assert build(switched_on=on, path=UNIQUE, builder="default")
    with pytest.raises(Failed, match='no builder "nowhere" found'):
        build(switched_on=on, path=UNIQUE, builder="nowhere")


@off_and_on
@pytest.mark.usefixtures("graphdriver_engine")
def test_push_is_refused(on: bool, name: str) -> None:
    with pytest.raises(OptionError, match=r"^push=True .* Leave it out"):
        build(switched_on=on, path=UNIQUE, tag=name, push=True)
    with docker_client() as client:
        assert not client.images.list(name)
