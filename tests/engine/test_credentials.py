"""Private base images and private images: the setting does not change which credentials are used."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pytest
from docker.errors import APIError
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import BuildError, PushError

from engines.published import Published
from support.guarded import BASIC, GIVES_PASSWORD, PASSWORD, USER, guarded_registry, write_docker_config, write_helper
from support.names import BUSYBOX, PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import DockerInUse, Setting
    from engines.private import Engine

HAS_BACKENDS = any(find_spec(f"prefect.{name}") for name in ("_internal.buildx", "docker._buildx"))


@pytest.fixture(scope="module")
def guarded(
    docker_in_use: DockerInUse, registry_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a registry that requires a password and has an image `base`."""
    folder = tmp_path_factory.mktemp("guarded")
    engine = next(iter(docker_in_use.engines.values()))
    with guarded_registry(registry_program, folder) as address:
        config = write_docker_config(folder, {"auths": {address: {"auth": BASIC}}})
        base = f"{address}/{PREFIX}/base"
        (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\n")
        engine.run("docker", "buildx", "build", "--load", "--provenance=false", f"--tag={base}", str(folder))
        engine.run("docker", f"--config={config}", "push", base)
        engine.run("docker", "image", "rm", base)
        yield address


class Case(NamedTuple):
    """An engine, and a Dockerfile with a private base image."""

    guarded: str
    engine: Engine
    folder: Path
    use: Callable[..., None]
    """Use this docker configuration."""

    def image(self, **options: Any) -> DockerImage:
        (self.folder / "Dockerfile").write_text(f"FROM {self.guarded}/{PREFIX}/base\nRUN echo {uuid4()} > /new\n")
        name = f"{self.guarded}/{PREFIX}/app-{uuid4()}"
        return DockerImage(name, "v1", "Dockerfile", stream_progress_to=sys.stdout, **options)


@pytest.fixture
def case(guarded: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    def use(config: dict[str, Any], *, home: bool = False) -> None:
        folder = Path(write_docker_config(tmp_path, config))
        shutil.copytree(engine.environment["DOCKER_CONFIG"], folder, symlinks=True, dirs_exist_ok=True)
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        if home:
            folder.rename(tmp_path / ".docker")
            monkeypatch.delenv("DOCKER_CONFIG")
            monkeypatch.setenv("HOME", str(tmp_path))

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{engine.environment['PATH']}")
    context = tmp_path / "context"
    context.mkdir()
    monkeypatch.chdir(context)
    return Case(guarded, engine, context, use)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """A function that returns everything that has been logged or printed."""
    with caplog.at_level(logging.DEBUG):
        yield lambda: "".join([caplog.text, *capfd.readouterr()])


PLACES: dict[str, tuple[Callable[[str], dict[str, Any]], bool]] = {
    "docker login, in DOCKER_CONFIG": (lambda registry: {"auths": {registry: {"auth": BASIC}}}, False),
    "docker login, in the home folder": (lambda registry: {"auths": {registry: {"auth": BASIC}}}, True),
    "a credential helper of this registry": (lambda registry: {"credHelpers": {registry: "vault"}}, False),
    "a credential helper of all registries": (lambda _: {"credsStore": "vault"}, False),
}


def _build_and_push(case: Case, place: str, told: Callable[[], str], **options: Any) -> Published:
    config, home = PLACES[place]
    case.use(config(case.guarded), home=home)
    # docker-py asks a helper for the list of its registries.
    write_helper(
        case.folder.parent, f"""[ "$1" = list ] && echo '{{"{case.guarded}": "{USER}"}}' || {GIVES_PASSWORD}"""
    )
    image = case.image(**options)
    image.build()
    image.push()

    printed = told()
    assert "> /new" in printed
    assert PASSWORD not in printed
    assert BASIC not in printed
    return Published(image.reference, BASIC)


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["docker-py", "build_backend", "build_backend and push"])
def test_a_private_base_image_is_pulled_and_the_image_pushed(
    case: Case, place: str, way: str, told: Callable[[], str]
) -> None:
    options: dict[str, Any] = {}
    if way != "docker-py":
        if not HAS_BACKENDS:
            pytest.skip("this Prefect has no build_backend")
        options = {"build_backend": "buildx", "push": way.endswith("push")}
    published = _build_and_push(case, place, told, **options)
    assert published.is_one_manifest
    assert all(published.layers_match())


# On the containerd image store, the classic builder's images cannot be pushed once the engine has unpacked the same
# layers from other blobs: "content digest ... not found".
@pytest.mark.parametrize("engine", ["graphdriver"], indirect=True)
@pytest.mark.parametrize("place", PLACES)
def test_the_classic_builder_uses_the_same_credentials(
    case: Case, place: str, setting: Setting, told: Callable[[], str]
) -> None:
    with setting(False):
        assert _build_and_push(case, place, told).is_one_manifest


WRONG = {
    "nobody logged in": (None, "`docker login REGISTRY`"),
    "another password": (
        GIVES_PASSWORD.replace(PASSWORD, "s3cret-but-wrong"),
        "`docker login REGISTRY`",
    ),
    "a helper that fails": ("echo no vault here; exit 1", "no vault here"),
}


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("how", WRONG)
def test_refused_credentials_are_an_error_with_the_login_command(case: Case, how: str, told: Callable[[], str]) -> None:
    script, expected = WRONG[how]
    case.use({"credsStore": "vault"} if script else {})
    if script:
        write_helper(case.folder.parent, script)
    with pytest.raises(BuildError) as error:
        case.image().build()

    assert case.guarded in str(error.value)
    assert expected in str(error.value)
    printed = str(error.value) + told()
    assert PASSWORD not in printed
    assert "s3cret-but-wrong" not in printed


@pytest.mark.usefixtures("switched_on")
def test_a_push_without_password_fails_as_it_does_without_the_setting(case: Case, setting: Setting) -> None:
    case.use({})
    image = case.image()
    (case.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\n")
    image.build()
    for value in (True, False):
        with setting(value), pytest.raises((PushError, APIError), match="no basic auth credentials"):
            image.push()
