"""Buildx-only options, with the setting off and on."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.utilities.dockerutils import docker_client

from prefect_docker_attest.errors import OptionError
from support.both_builders import Failed, build
from support.debian_programs import unpacked, variables
from support.names import BUSYBOX, CONTEXTS
from support.outcomes import pushed, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import DockerInUse
    from engines.private import Engine, PrivateDocker, Registry

UNIQUE = str(CONTEXTS / "unique")
PLATFORMS = ["linux/amd64", "linux/arm64"]

off_and_on = pytest.mark.parametrize("on", [False, True], ids=["off", "on"])


@pytest.fixture
def name(registry: Registry) -> str:
    return f"{registry.address}/options/{uuid4()}:1"


@pytest.fixture(scope="module")
def scanner(docker_in_use: DockerInUse, registry: Registry) -> str:
    """An image with which BuildKit can make SBOMs. BuildKit's default image cannot be pulled here."""
    name = f"{registry.address}/options/scanner:1"
    engine = next(iter(docker_in_use.engines.values()))
    folder = Path(__file__).parents[1] / "cli/scanner"
    base = f"--build-context=busybox=docker-image://{BUSYBOX}"
    engine.run("docker", "buildx", "build", "--load", "--provenance=false", base, f"--tag={name}", str(folder))
    engine.run("docker", "push", name)
    return name


# Options of an image, and the kinds of attestations that it has with them.
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


@pytest.mark.usefixtures("containerd_engine", "amd64")
@pytest.mark.parametrize("asked", ATTESTATIONS)
def test_requested_attestations_are_in_the_registry(asked: str, name: str, scanner: str) -> None:
    build(switched_on=False, path=UNIQUE, tag=name, **asking(asked, scanner))
    image = pushed(name)
    assert image.platforms() == ["linux/amd64", "unknown/unknown"]
    attestations = image.manifest(image.manifest()["manifests"][1]["digest"])["layers"]
    kinds = [layer["annotations"]["in-toto.io/predicate-type"] for layer in attestations]
    assert {kind.split("/")[2] for kind in kinds} == ATTESTATIONS[asked][1]


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("asked", ATTESTATIONS)
def test_setting_on_attestations_are_overridden_with_one_warning(
    asked: str, name: str, scanner: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = asking(asked, scanner)
    build(switched_on=True, path=UNIQUE, tag=name, **options)
    assert pushed(name).is_one_manifest
    (warning,) = warnings(caplog)
    assert warning.startswith("PREFECT_DOCKER_DISABLE_ATTESTATIONS overrides ")
    assert all(f"{option}=" in warning for option, value in options.items() if value)


@pytest.mark.usefixtures("graphdriver_engine")
@pytest.mark.parametrize("asked", ATTESTATIONS)
def test_attestations_on_the_graphdriver_store_are_an_error_with_advice(asked: str, scanner: str) -> None:
    with pytest.raises(Failed, match="Attestations need the containerd image store"):
        build(switched_on=False, path=UNIQUE, **asking(asked, scanner))


@pytest.mark.private("wants Docker Hub out of reach")
@pytest.mark.usefixtures("some_engine")
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
    assert hashlib.sha256(secret.encode()).hexdigest() in built.files["/seen"]
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
    """The fingerprint of a key in an SSH agent that runs during this test."""
    if not shutil.which("ssh-agent"):
        for variable, value in variables(unpacked("openssh-client")).items():
            monkeypatch.setenv(variable, value)
    key, socket = str(tmp_path / "key"), str(tmp_path / "agent")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        while subprocess.run(["ssh-add", "-q", key], stderr=subprocess.DEVNULL, check=False).returncode:
            assert agent.poll() is None
            time.sleep(0.05)
        listed = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True).stdout
        yield listed.split()[1]
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="runs a program of this machine in a container")
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
    assert fingerprint in built.files["/seen"]


CACHES = {"local": "type=local,{}={folder}", "registry": "type=registry,ref={registry}/options/cache-{id}:1"}


@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_is_written_and_read(
    kind: str, containerd_engine: Engine, registry: Registry, tmp_path: Path, forget: Callable[[Engine], None]
) -> None:
    here = {"folder": tmp_path / "cache", "registry": registry.address, "id": uuid4()}
    first = build(switched_on=True, path=UNIQUE, cache_to=CACHES[kind].format("dest", **here))
    forget(containerd_engine)
    other = build(switched_on=True, path=UNIQUE, nocache=False)
    forget(containerd_engine)
    again = build(switched_on=True, path=UNIQUE, nocache=False, cache_from=[CACHES[kind].format("src", **here)])
    assert again.files["/unique"] == first.files["/unique"] != other.files["/unique"]


def test_a_cache_in_the_image_is_read_by_its_name(
    engine: Engine, name: str, caplog: pytest.LogCaptureFixture, forget: Callable[[Engine], None]
) -> None:
    first = build(switched_on=True, path=UNIQUE, cache_to="type=inline", tag=name)
    pushed(name)
    forget(engine)
    again = build(switched_on=True, path=UNIQUE, nocache=False, cache_from=[name])
    assert again.files["/unique"] == first.files["/unique"]
    (warning,) = warnings(caplog)
    assert name in warning


@pytest.mark.usefixtures("graphdriver_engine")
def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"(?s)Cache export is not supported .* containerd image store"):
        build(switched_on=True, path=UNIQUE, cache_to={"type": "local", "dest": str(tmp_path)})


@off_and_on
@pytest.mark.usefixtures("some_engine", "amd64")
def test_other_contexts(on: bool) -> None:
    contexts = {
        "folder": str(CONTEXTS / "nested/src"),
        "image": f"docker-image://{BUSYBOX}",
        "base": f"docker-image://{BUSYBOX}",
    }
    built = build(switched_on=on, path=str(CONTEXTS / "other-contexts"), build_contexts=contexts)
    assert "'x\\n'" in built.files["/folder.txt"]
    assert "busybox for amd64" in built.files["/image.txt"]


@pytest.mark.usefixtures("emulation")
@off_and_on
@pytest.mark.parametrize("given", [{"platforms": PLATFORMS}, {"platform": ",".join(PLATFORMS)}], ids=["list", "commas"])
def test_several_platforms_are_loaded_and_pushed(
    on: bool, given: dict[str, Any], containerd_engine: Engine, name: str
) -> None:
    build(switched_on=on, path=UNIQUE, tag=name, **given)
    image = pushed(name)
    attestations = [] if on else ["unknown/unknown"] * 2
    assert image.platforms() == [*PLATFORMS, *attestations]
    assert containerd_engine.output_of("--platform=linux/arm64", name, "uname", "-m") == "aarch64\n"


@pytest.mark.usefixtures("graphdriver_engine")
def test_several_platforms_on_the_graphdriver_store_are_an_error_with_advice() -> None:
    with pytest.raises(Failed, match="Several platforms need the containerd image store"):
        build(switched_on=True, path=UNIQUE, platforms=PLATFORMS)


@pytest.fixture
def buildx_that_attests(containerd_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A plugin that ignores flag and variable, like buildx 0.10.0."""
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


@pytest.mark.usefixtures("buildx_that_attests", "emulation")
@pytest.mark.parametrize("platforms", [PLATFORMS[:1], PLATFORMS], ids=len)
def test_unwanted_attestations_are_an_error(platforms: list[str], docker_in_use: DockerInUse) -> None:
    if len(platforms) > 1 and int(docker_in_use.docker_version.split(".")[0]) < 28:
        # This engine does not list the manifests of an index, so nothing is checked.
        assert build(switched_on=True, path=UNIQUE, platforms=platforms)
        return
    with pytest.raises(Failed, match="built with attestations, although PREFECT_DOCKER_DISABLE_ATTESTATIONS is set"):
        build(switched_on=True, path=UNIQUE, platforms=platforms)


@off_and_on
def test_annotations_are_in_the_registry(on: bool, engine: Engine, name: str) -> None:
    given = {"org.opencontainers.image.title": "a, b=c"}
    if engine.store == "graphdriver":
        with pytest.raises(OptionError, match=r"^annotations is not supported: .*\nTIP Use the containerd image store"):
            build(switched_on=on, path=UNIQUE, annotations=given)
        return
    build(switched_on=on, path=UNIQUE, tag=name, annotations=given, provenance=False)
    assert pushed(name).manifest()["annotations"] == given


@off_and_on
@pytest.mark.usefixtures("engine")
def test_no_cache_filter_builds_only_the_named_stage_again(on: bool, tmp_path: Path) -> None:
    stages = [
        f"FROM {BUSYBOX} AS {stage}\nRUN cat /proc/sys/kernel/random/uuid > /{stage}\n" for stage in ("one", "two")
    ]
    copies = "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    (tmp_path / "Dockerfile").write_text("".join([*stages, copies]))
    first = build(switched_on=True, path=str(tmp_path), nocache=False)
    again = build(switched_on=on, path=str(tmp_path), nocache=False, no_cache_filter="two")
    assert again.files["/one"] == first.files["/one"]
    assert again.files["/two"] != first.files["/two"]


@off_and_on
@pytest.mark.usefixtures("engine")
def test_ulimit_limits_a_step(on: bool, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN ulimit -n > /soft && ulimit -Hn > /hard\n")
    built = build(switched_on=on, path=str(tmp_path), ulimit=["nofile=123:456"])
    assert "'123\\n'" in built.files["/soft"]
    assert "'456\\n'" in built.files["/hard"]


@off_and_on
@pytest.mark.usefixtures("engine")
def test_cgroup_parent_holds_the_groups_of_steps(on: bool, private_docker: PrivateDocker, tmp_path: Path) -> None:
    # Control groups below this one are removed together with the engines.
    parent = f"/{private_docker.folder.name}/{uuid4()}"
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN true\n")
    build(switched_on=on, path=str(tmp_path), cgroup_parent=parent)
    # With version 2 of control groups, the step itself does not see its group.
    # With version 1, the groups are in a folder for each controller.
    root = Path("/sys/fs/cgroup")
    assert any(folder.is_dir() for folder in (root / f"{parent[1:]}/buildkit", *root.glob(f"*{parent}/buildkit")))


@off_and_on
@pytest.mark.usefixtures("engine", "engine_is_here")
def test_allow_lets_a_step_use_the_network_of_the_host(on: bool, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN --network=host readlink /proc/self/ns/net > /network\n")
    with pytest.raises(Failed, match=r"network\.host is not allowed"):
        build(switched_on=True, path=str(tmp_path))
    built = build(switched_on=on, path=str(tmp_path), allow="network.host")
    assert os.readlink("/proc/self/ns/net") in built.files["/network"]


@pytest.mark.usefixtures("engine")
def test_an_entitlement_that_the_engine_does_not_grant_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN true\n")
    with pytest.raises(Failed, match=r"security\.insecure is not allowed by build daemon configuration"):
        build(switched_on=True, path=str(tmp_path), allow=["security.insecure"])


@off_and_on
@pytest.mark.usefixtures("some_engine")
def test_a_builder_is_named(on: bool) -> None:
    assert build(switched_on=on, path=UNIQUE, builder="default")
    with pytest.raises(Failed, match='no builder "nowhere" found'):
        build(switched_on=on, path=UNIQUE, builder="nowhere")


@off_and_on
@pytest.mark.usefixtures("some_engine")
def test_push_is_refused(on: bool, name: str) -> None:
    with pytest.raises(OptionError, match=r"^push=True is not supported: Prefect pushes .*\nTIP Omit it"):
        build(switched_on=on, path=UNIQUE, tag=name, push=True)
    with docker_client() as client:
        assert not client.images.list(name)
