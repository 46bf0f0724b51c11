"""Pushes that go wrong: nothing half published, nothing left on this machine, and an error that shows what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import PushError, docker_client

from engines.links import Link, proxy
from engines.published import Published
from support.guarded import BASIC, GIVES_PASSWORD, guarded_registry, write_helper
from support.names import BUSYBOX
from support.processes import allowed
from support.pushing import MANIFEST, push_image, tar_layer
from support.registry_proxy import registry_proxy
from support.tokens import registry_with_tokens, token_server
from support.ways import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engines.private import Engine, Registry
    from support.slow_build import SlowBuild

MEGABYTE = 1_000_000

# One image store is enough where the builder pushes, or where only docker-py or the registry matter.
containerd = pytest.mark.parametrize("engine", ["containerd"], indirect=True)
graphdriver = pytest.mark.parametrize("engine", ["graphdriver"], indirect=True)


@pytest.fixture
def context(slow: SlowBuild, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build context with 5 MB that no registry has. The processes and files of its builds can be found."""
    (slow.context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY new /new\n")
    (slow.context / "new").write_bytes(os.urandom(5 * MEGABYTE))
    monkeypatch.chdir(slow.context)
    return slow.context


def image_of(name: str, folder: Path) -> DockerImage:
    return DockerImage(name, dockerfile="Dockerfile", context=folder)


def build_error(name: str, folder: Path, **options: Any) -> str:
    """Build with the builder of this process, which must fail; return the error. Prefect would build several times."""
    with settings(disable_attestations=True, push_from_builder=True), docker_client() as client:
        (*_, last) = client.api.build(path=str(folder), tag=name, decode=True, **options)
    return str(last["error"])


@pytest.fixture
def link(registry: Registry, engine_is_here: None) -> Iterator[tuple[Link, str]]:  # noqa: ARG001 the link ends here
    """A link to the registry, and its address at this end."""
    link = Link()
    with proxy(int(registry.address.rpartition(":")[2]), link, (), Link()) as near:
        yield link, f"127.0.0.1:{near}"


# An engine with the graphdriver store retries for 50 seconds, with the setting on and off.
@containerd
@pytest.mark.parametrize("switched_on", [True, False])
def test_a_network_that_breaks_while_the_engine_pushes(
    engine: Engine, registry: Registry, context: Path, link: tuple[Link, str], switched_on: bool
) -> None:
    wire, address = link
    repository = f"push-faults/{uuid4()}"
    image = image_of(f"{address}/{repository}:v1", context)
    with settings(disable_attestations=switched_on):
        image.build()
    wire.breaks_after = wire.carried + MEGABYTE
    try:
        with pytest.raises(PushError):
            image.push()
        assert not Published(f"{registry.address}/{repository}:v1").exists
        wire.breaks_after = float("inf")
        if switched_on:  # the engine cannot always push images of the classic builder (see test_credentials.py)
            image.push()
            assert all(Published(f"{registry.address}/{repository}:v1").layers_match())
    finally:
        engine.run("docker", "image", "rm", "--force", f"{address}/{repository}:v1")


@containerd
@pytest.mark.usefixtures("far_in_use")
def test_a_network_that_breaks_while_the_builder_pushes(
    registry: Registry, context: Path, link: tuple[Link, str], slow: SlowBuild
) -> None:
    # BuildKit sends a request again three times, which takes 7 seconds.
    wire, address = link
    repository = f"push-faults/{uuid4()}"
    wire.breaks_after = wire.carried + MEGABYTE
    error = build_error(f"{address}/{repository}:v1", context)

    assert f": failed to push {address}/{repository}: " in error.splitlines()[0]
    assert "because PREFECT_DOCKER_PUSH_FROM_BUILDER is on" in error
    assert error.endswith("\nTIP Check the network between the builder and the registry, and build again.")
    slow.check_nothing_is_left()
    assert not Published(f"{registry.address}/{repository}:v1").exists

    wire.breaks_after = float("inf")
    image = image_of(f"{address}/{repository}:v1", context)
    with settings(disable_attestations=True, push_from_builder=True):
        image.build()
        image.push()
    assert all(Published(f"{registry.address}/{repository}:v1").layers_match())


SCRIPT = """
import sys
from prefect.docker import DockerImage
name = sys.argv[1]
image = DockerImage(name, dockerfile="Dockerfile", context=".")
image.build()
print("built", flush=True)
input()
image.push()
"""


def started(name: str, folder: Path, label: str, **variables: str) -> subprocess.Popen[str]:
    """Start a process that builds an image; return it when it waits for a line, after which it pushes the image."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nLABEL built={label}\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name],
        cwd=folder,
        env={**os.environ, **{f"PREFECT_DOCKER_{key}": value for key, value in variables.items()}},
        **pipes,  # type: ignore[call-overload]
    )
    assert process.stdout
    output = ""
    while (line := process.stdout.readline()) != "built\n":
        output += line
        assert line, output
    return process


def push(*processes: subprocess.Popen[str]) -> None:
    """Let processes push at the same time."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=allowed(120))[0] for process in processes]
    assert not any(process.returncode for process in processes), outputs


def label_of(name: str) -> str:
    return str(Published(name).config()["config"]["Labels"]["built"])


@containerd
@pytest.mark.usefixtures("far_in_use")
def test_of_two_processes_whose_builders_push_one_tag_one_wins(registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/push-faults/{uuid4()}:v1"
    on = {"DISABLE_ATTESTATIONS": "true", "PUSH_FROM_BUILDER": "true"}
    first, second = (started(name, tmp_path / label, label, **on) for label in ("first", "second"))
    assert not Published(name).exists
    push(first, second)
    assert label_of(name) in ("first", "second")
    assert Published(name).is_one_manifest
    assert all(Published(name).layers_match())


@graphdriver
@pytest.mark.parametrize("switched_on", ["true", "false"])
def test_two_processes_push_the_image_that_has_the_tag_in_the_engine(
    engine: Engine, registry: Registry, tmp_path: Path, switched_on: str
) -> None:
    name = f"{registry.address}/push-faults/{uuid4()}:v1"
    first, second = (
        started(name, tmp_path / label, label, DISABLE_ATTESTATIONS=switched_on) for label in ("first", "second")
    )
    # One of two pushes of this store at the same time has failed with `digest invalid` (Docker 26.1).
    push(first)
    push(second)
    assert label_of(name) == "second"
    engine.run("docker", "image", "rm", "--force", name)


@containerd
@pytest.mark.usefixtures("far_in_use")
def test_a_tag_that_moved_in_the_registry_since_the_build_moves_again(registry: Registry, context: Path) -> None:
    repository = f"push-faults/{uuid4()}"
    name = f"{registry.address}/{repository}:v1"
    with settings(disable_attestations=True, push_from_builder=True):
        image = image_of(name, context)
        image.build()
        theirs = push_image(f"http://{registry.address}/v2/{repository}", tar_layer("theirs"), tag="v1")["digest"]
        assert Published(name).digest() == theirs
        image.push()
    assert Published(name).digest() != theirs
    assert all(Published(name).layers_match())
    assert all(Published(name).layers_match(theirs))


@containerd
@pytest.mark.usefixtures("far_in_use")
def test_a_token_that_expires_while_the_builder_pushes(
    registry_program: str, context: Path, tmp_path: Path, own_configuration: Path
) -> None:
    lifetime = 15
    slept: list[str] = []

    def sleep_once(method: str, path: str) -> None:
        if not slept and method == "PUT" and "/blobs/uploads/" in path:
            slept.append(path)
            time.sleep(lifetime + 1.1)

    with (
        token_server(lifetime) as tokens,
        registry_with_tokens(registry_program, tmp_path, tokens) as registry,
        registry_proxy(registry) as proxy,
        settings(disable_attestations=True, push_from_builder=True),
    ):
        proxy.gets_uploads, proxy.then = True, sleep_once
        (own_configuration / "config.json").write_text(json.dumps({"auths": {proxy.address: {"auth": BASIC}}}))
        image = image_of(f"{proxy.address}/app:v1", context)
        image.build()
        asked = len(tokens.asked)
        image.push()
        headers = {"Accept": MANIFEST, "Authorization": f"Bearer {tokens.token('repository:app:pull')}"}
        tagged = httpx.get(f"http://{registry}/v2/app/manifests/v1", headers=headers, trust_env=False)
    assert slept
    assert asked > 1
    assert tagged.is_success


@pytest.fixture
def guarded(registry_program: str, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "guarded").mkdir()
    with guarded_registry(registry_program, tmp_path / "guarded") as address:
        yield address


@pytest.fixture
def use_helper(own_configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes a shell script the credential helper of all registries."""

    def use(script: str) -> None:
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        write_helper(tmp_path, script)
        (own_configuration / "config.json").write_text(json.dumps({"credsStore": "vault"}))

    return use


SEE_CREDENTIALS = "Check credsStore, credHelpers and auths in docker's config.json, or run `docker login REGISTRY`."
BROKEN = {
    "echo garbage": ("gives no usable credentials for {guarded}.", SEE_CREDENTIALS),
    "echo no vault here; exit 1": ("no vault here`\n", SEE_CREDENTIALS),
    "exec sleep 1000": ("); running: exporting to image\n", "If it only needs more time"),
}
"""Scripts of credential helpers, with the words and the tip of the error."""


@containerd
@pytest.mark.usefixtures("far_in_use")
@pytest.mark.parametrize("script", BROKEN)
def test_a_broken_credential_helper_while_the_builder_pushes(
    guarded: str, context: Path, slow: SlowBuild, use_helper: Callable[[str], None], script: str
) -> None:
    use_helper(script)
    # A short timeout could also end the other builds, on a busy machine.
    options = {"timeout": round(allowed(8))} if "sleep" in script else {}
    error = build_error(f"{guarded}/app:v1", context, **options)

    words, tip = BROKEN[script]
    assert words.format(guarded=guarded) in error
    assert f"\nTIP {tip}" in error
    assert len(error.partition("\n")[2].splitlines()) <= 3
    slow.check_nothing_is_left()

    use_helper(GIVES_PASSWORD)
    image = image_of(f"{guarded}/app:v1", context)
    with settings(disable_attestations=True, push_from_builder=True):
        image.build()
        image.push()
    assert Published(f"{guarded}/app:v1", BASIC).is_one_manifest


@graphdriver
@pytest.mark.parametrize("script", ["echo garbage", "echo no vault here; exit 1"], ids=["garbage", "fails"])
def test_a_broken_credential_helper_while_docker_py_pushes_is_the_same_error_as_without_the_setting(
    engine: Engine, guarded: str, context: Path, use_helper: Callable[[str], None], script: str
) -> None:
    image = image_of(f"{guarded}/app:v1", context)
    image.build()
    use_helper(script)
    errors = []
    for switched_on in (True, False):
        with settings(disable_attestations=switched_on), pytest.raises((RuntimeError, ValueError)) as error:
            image.push()
        errors.append((type(error.value), str(error.value), str(error.value.__cause__)))
    engine.run("docker", "image", "rm", f"{guarded}/app:v1")
    assert errors[0] == errors[1]
    assert not Published(f"{guarded}/app:v1", BASIC).exists
