"""A private base image and a private image: docker's credentials serve them with the setting as without it."""

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

from guarded import BASIC, GIVES_PASSWORD, PASSWORD, USER, guarded_registry, write_docker_config, write_helper
from published import Published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Setting
    from private_docker import Engine, PrivateDocker

HAS_BACKENDS = any(find_spec(f"prefect.{name}") for name in ("_internal.buildx", "docker._buildx"))


@pytest.fixture(scope="module")
def guarded(private_docker: PrivateDocker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that wants a password, with `team/base` in it."""
    folder = tmp_path_factory.mktemp("guarded")
    engine = private_docker.engines["graphdriver"]  # pushes the one platform that it has
    program = shutil.which("docker-registry", path=engine.environment["PATH"])
    assert program
    with guarded_registry(program, folder) as address:
        config = write_docker_config(folder, {"auths": {address: {"auth": BASIC}}})
        base = f"{address}/team/base"
        engine.run("docker", "pull", "--platform=linux/amd64", "busybox")
        engine.run("docker", "tag", "busybox", base)
        engine.run("docker", f"--config={config}", "push", base)
        engine.run("docker", "image", "rm", base)
        yield address


class Case(NamedTuple):
    """An engine, and a Dockerfile that begins with a private image."""

    guarded: str
    engine: Engine
    folder: Path
    use: Callable[..., None]
    """Use this configuration of docker's."""

    def image(self, **options: Any) -> DockerImage:
        (self.folder / "Dockerfile").write_text(f"FROM {self.guarded}/team/base\nRUN echo {uuid4()} > /new\n")
        name = f"{self.guarded}/team/app-{uuid4()}"
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
    """A function that returns all that was logged or printed up to then."""
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
    # docker-py asks a helper of all registries which ones it has.
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
def test_so_they_are_by_the_classic_builder(case: Case, place: str, setting: Setting, told: Callable[[], str]) -> None:
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
def test_what_the_registry_does_not_accept_is_an_error_that_says_where_to_log_in(
    case: Case, how: str, told: Callable[[], str]
) -> None:
    script, said = WRONG[how]
    case.use({"credsStore": "vault"} if script else {})
    if script:
        write_helper(case.folder.parent, script)
    with pytest.raises(BuildError) as error:
        case.image().build()

    assert case.guarded in str(error.value)
    assert said in str(error.value)
    printed = str(error.value) + told()
    assert PASSWORD not in printed
    assert "s3cret-but-wrong" not in printed


@pytest.mark.usefixtures("switched_on")
def test_a_push_without_password_fails_as_it_does_without_the_setting(case: Case, setting: Setting) -> None:
    case.use({})
    image = case.image()
    (case.folder / "Dockerfile").write_text("FROM busybox\n")
    image.build()
    for value in (True, False):
        with setting(value), pytest.raises((PushError, APIError), match="no basic auth credentials"):
            image.push()
