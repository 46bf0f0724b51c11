"""`flow.deploy` and the steps in prefect.yaml publish one manifest."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
from prefect.docker import DockerImage
from prefect.testing.utilities import prefect_test_harness
from prefect_docker.deployments.steps import build_docker_image, push_docker_image
from prefect_docker.worker import DockerWorker

from engines.published import Published
from support.names import BUSYBOX
from support.ways import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, PrivateDocker, Registry
    from support.podman import Podman

POOL = "docker-pool"


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server for this module, with a work pool for Docker."""
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    async def create_work_pool() -> None:
        template = DockerWorker.get_default_base_job_template()
        # The synchronous client of old versions of Prefect does not have this method.
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="docker", base_job_template=template))

    with prefect_test_harness(server_startup_timeout=120):
        asyncio.run(create_work_pool())
        yield


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/\nRUN uname -m\n")
    # Old versions of Prefect deploy only flows in the current directory.
    (tmp_path / "flows.py").write_text("from prefect import flow\n\n\n@flow\ndef hello() -> None: ...\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hello(context: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # Old versions of Prefect do not deploy flows that Prefect has loaded from a file, so the module is imported.
    monkeypatch.syspath_prepend(context)
    yield importlib.import_module("flows").hello
    sys.modules.pop("flows")


def _deployed_image(deployment: Any) -> str:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        found = client.read_deployment(deployment)
    image: str = found.job_variables["image"]
    return image


@pytest.mark.usefixtures("server", "switched_on", "emulation")
def test_flow_deploy_builds_and_pushes_one_manifest_for_another_platform(
    engine: Engine, registry: Registry, hello: Any
) -> None:
    name = f"{registry.address}/deployed-{engine.store}"
    deployment = hello.deploy(
        name="image-object",
        work_pool_name=POOL,
        image=DockerImage(name, tag="v1", dockerfile="Dockerfile", platform="linux/arm64"),
        print_next_steps=False,
    )
    assert _deployed_image(deployment) == f"{name}:v1"
    published = Published(f"{name}:v1")
    assert published.is_one_manifest
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())


@pytest.mark.usefixtures("server", "emulation")
def test_flow_deploy_builds_with_the_settings_that_are_defaults(registry: Registry, hello: Any, engine: Engine) -> None:
    name = f"{registry.address}/deployed-by-settings-{engine.store}:v1"
    cache = "type=inline" if engine.store == "graphdriver" else "type=registry,ref={image}:{platform}"
    with settings(platform="linux/arm64", media_types="docker", cache_to=cache, disable_attestations=True):
        hello.deploy(
            name="by-settings",
            work_pool_name=POOL,
            image=DockerImage(name, dockerfile="Dockerfile"),
            print_next_steps=False,
        )
    published = Published(name)
    assert published.config()["architecture"] == "arm64"
    assert published.manifest()["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    if engine.store == "containerd":
        assert Published(f"{name.removesuffix(':v1')}:linux-arm64").manifest()


@pytest.mark.usefixtures("server", "far_in_use")
def test_flow_deploy_with_a_builder_that_pushes(registry: Registry, hello: Any, engine: Engine) -> None:
    name = f"{registry.address}/deployed-from-builder-{engine.store}"

    def deploy(tag: str, *, push: bool) -> None:
        image = DockerImage(name, tag=tag, dockerfile="Dockerfile", platform="linux/arm64")
        options = {"work_pool_name": POOL, "print_next_steps": False, "push": push}
        hello.deploy(name=f"from-builder-{tag}", image=image, **options)

    with settings(push_from_builder=True, disable_attestations=True):
        deploy("not-pushed", push=False)
        deploy("v1", push=True)
    published = Published(f"{name}:v1")
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())
    with pytest.raises(HTTPError, match="404"):
        Published(f"{name}:not-pushed").manifest()
    assert engine.run("docker", "image", "inspect", f"{name}:v1", check=False).returncode


@pytest.mark.usefixtures("server", "switched_on")
def test_flow_deploy_on_podman(podman: Podman, private_docker: PrivateDocker, hello: Any, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/\n")
    name = f"{private_docker.registry.address}/deployed-on-podman-{podman.version}"
    image = DockerImage(name, tag="v1", dockerfile="Dockerfile", platform="linux/arm64")
    deployment = hello.deploy(name="on-podman", work_pool_name=POOL, image=image, print_next_steps=False)
    assert _deployed_image(deployment) == f"{name}:v1"
    published = Published(f"{name}:v1")
    assert published.is_one_manifest
    assert published.config()["architecture"] == "arm64"
    assert all(published.layers_match())


@pytest.mark.private("puts the base image of Prefect into the engine's Docker Hub")
@pytest.mark.usefixtures("server", "switched_on")
def test_flow_deploy_takes_an_image_by_name_with_the_generated_dockerfile(
    engine: Engine, registry: Registry, context: Path, hello: Any
) -> None:
    # Prefect generates the Dockerfile. The engine pulls its base image from the mirror.
    from prefect.utilities.dockerutils import get_prefect_image_name

    (context / "Dockerfile").unlink()
    base = get_prefect_image_name()
    mirrored = f"{registry.address}/{base}"
    engine.run("docker", "pull", BUSYBOX)
    engine.run("docker", "tag", BUSYBOX, mirrored)
    engine.run("docker", "push", mirrored)
    name = f"{registry.address}/deployed-{engine.store}:by-name"

    hello.deploy(name="image-name", work_pool_name=POOL, image=name, print_next_steps=False)
    published = Published(name)
    assert published.is_one_manifest
    assert all(published.layers_match())


@pytest.mark.usefixtures("context", "switched_on", "emulation")
def test_the_steps_build_tag_and_push_one_manifest(engine: Engine, registry: Registry) -> None:
    name = f"{registry.address}/steps-{engine.store}"
    # prefect-docker's documentation uses platforms without an operating system, such as `amd64`.
    built = build_docker_image(name, tag="v1", additional_tags=["v2"], platform="arm64", ignore_cache=True)
    pushed = push_docker_image(name, tag="v1", additional_tags=["v2"], ignore_cache=True)

    assert (
        engine.run("docker", "image", "inspect", "--format={{.Id}}", f"{name}:v2").stdout.strip() == built["image_id"]
    )
    assert pushed["image"] == f"{name}:v1"
    for tag in ("v1", "v2"):
        published = Published(f"{name}:{tag}")
        assert published.is_one_manifest
        assert published.config()["architecture"] == "arm64"


@pytest.mark.usefixtures("context")
def test_a_step_with_provenance_false_needs_no_setting(
    some_engine: Engine, registry: Registry, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{registry.address}/steps-per-image"
    with setting(False):
        build_docker_image(name, tag="v1", provenance=False, sbom=False, ignore_cache=True)
        push_docker_image(name, tag="v1", ignore_cache=True)
    assert some_engine.host
    assert "[internal] load build definition" in capsys.readouterr().out
    assert Published(f"{name}:v1").is_one_manifest


@pytest.mark.usefixtures("emulation")
def test_the_variable_is_enough_for_an_unchanged_script(
    some_engine: Engine, registry: Registry, context: Path, tmp_path: Path
) -> None:
    script = tmp_path / "deploy.py"
    script.write_text(
        "from prefect.docker import DockerImage\n"
        f"image = DockerImage('{registry.address}/script', tag='v1', dockerfile='Dockerfile', platform='linux/arm64')\n"
        "image.build()\nimage.push()\n"
    )
    environment = {**some_engine.environment, "PREFECT_DOCKER_DISABLE_ATTESTATIONS": "true"}
    ran = subprocess.run(
        [sys.executable, script], env=environment, cwd=context, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    published = Published(f"{registry.address}/script:v1")
    assert published.is_one_manifest
    assert all(published.layers_match())
