"""Deployments from start to end: an image is built and pushed, a worker pulls it, and the flow run completes in it.

The deployments are made like users make them: with a script or `prefect deploy`, and only the variable in the
environment. Like Prefect's own images, the container does not have prefect-docker-attest. The worker passes the
variable to the container.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prefect.utilities.dockerutils import get_prefect_image_name

from engines.machine import CommandFailed
from engines.published import Published

if TYPE_CHECKING:
    from pathlib import Path

    from engines.private import Engine, Registry, Store
    from support.prefect_server import MakeProject, Prefect, Run
    from support.remote_builder import RemoteBuilder

# The time of the first test includes making the base image and starting a server.
pytestmark = pytest.mark.timeout(900)


def _gone(engine: Engine, *images: str) -> None:
    """Remove images from an engine, so that they must be pulled."""
    for image in images:
        engine.run("docker", "image", "rm", "--force", image)
        assert engine.run("docker", "image", "inspect", image, check=False).returncode


def _assert_completed(run: Run, greeting: str) -> None:
    assert run.state == "Completed", run.log
    assert greeting in run.log


@pytest.mark.parametrize("store", ["containerd", "graphdriver"])
def test_flow_deploy_with_a_dockerfile_of_the_users(
    prefect: Prefect, registry: Registry, project: MakeProject, store: Store
) -> None:
    image = f"{registry.address}/rounds/dockerfile-{store}"
    mine = project(store)
    (mine.folder / "Dockerfile").write_text(
        f"FROM {get_prefect_image_name()}\nCOPY . /opt/prefect/project/\nWORKDIR /opt/prefect/project/\n"
    )
    mine.script(f"""
        image = DockerImage("{image}", tag="v1", dockerfile="Dockerfile")
        hello.deploy(name="dockerfile-{store}", work_pool_name="{prefect.worker(store)}", image=image)
    """)
    assert Published(f"{image}:v1").is_one_manifest
    _gone(prefect.engines[store], f"{image}:v1")

    run = prefect.finish(f"hello/dockerfile-{store}")
    _assert_completed(run, "hello from x86_64")
    assert "attestations disabled: True" in run.log
    assert "the package is installed: False" in run.log


@pytest.mark.parametrize("push_from_builder", ["true", "false"])
def test_flow_deploy_with_a_builder_on_another_machine(
    prefect: Prefect,
    registry: Registry,
    project: MakeProject,
    *,
    engine: Engine,
    far: RemoteBuilder,
    own_configuration: Path,
    push_from_builder: str,
) -> None:
    name = f"builder-{push_from_builder}-{engine.store}"
    image = f"{registry.address}/rounds/{name}"
    mine = project(engine.store)
    elsewhere = {
        "DOCKER_CONFIG": str(own_configuration),
        "BUILDX_BUILDER": far.name,
        "PREFECT_DOCKER_PUSH_FROM_BUILDER": push_from_builder,
    }
    mine = replace(mine, environment={**mine.environment, **elsewhere})
    # The builder has no mirror with the base image.
    (mine.folder / "Dockerfile").write_text(
        f"FROM {registry.address}/{get_prefect_image_name()}\nCOPY . /opt/prefect/project/\n"
        "WORKDIR /opt/prefect/project/\n"
    )
    mine.script(f"""
        image = DockerImage("{image}", tag="v1", dockerfile="Dockerfile")
        hello.deploy(name="{name}", work_pool_name="{prefect.worker(engine.store)}", image=image)
    """)
    assert Published(f"{image}:v1").is_one_manifest
    if push_from_builder == "false":
        engine.run("docker", "image", "rm", "--force", f"{image}:v1")
    assert engine.run("docker", "image", "inspect", f"{image}:v1", check=False).returncode
    _assert_completed(prefect.finish(f"hello/{name}"), "hello from x86_64")


def test_flow_deploy_with_the_generated_dockerfile(prefect: Prefect, registry: Registry, project: MakeProject) -> None:
    image = f"{registry.address}/rounds/generated"
    project("containerd").script(f"""
        image = DockerImage("{image}", tag="v1")
        hello.deploy(name="generated", work_pool_name="{prefect.worker("containerd")}", image=image)
    """)
    assert Published(f"{image}:v1").is_one_manifest
    _gone(prefect.engines["containerd"], f"{image}:v1")
    _assert_completed(prefect.finish("hello/generated"), "hello from x86_64")


def test_flow_deploy_with_the_name_of_an_image(prefect: Prefect, registry: Registry, project: MakeProject) -> None:
    image = f"{registry.address}/rounds/name:v1"
    project("graphdriver").script(f"""
        hello.deploy(name="name", work_pool_name="{prefect.worker("graphdriver")}", image="{image}")
    """)
    assert Published(image).is_one_manifest
    _gone(prefect.engines["graphdriver"], image)
    _assert_completed(prefect.finish("hello/name"), "hello from x86_64")


def test_deploy_of_two_flows_in_one_image(prefect: Prefect, registry: Registry, project: MakeProject) -> None:
    image = f"{registry.address}/rounds/two:v1"
    # The engine that runs the image has the other image store than the one that built it.
    project("graphdriver").script(f"""
        deploy(
            hello.to_deployment(name="two"),
            goodbye.to_deployment(name="two"),
            work_pool_name="{prefect.worker("containerd")}",
            image="{image}",
        )
    """)
    assert Published(image).is_one_manifest
    _assert_completed(prefect.finish("hello/two"), "hello from x86_64")
    _assert_completed(prefect.finish("goodbye/two"), "goodbye from x86_64")


STEPS = """\
name: project
build:
  - prefect_docker.deployments.steps.build_docker_image:
      id: build
      image_name: {image}
      tag: v1
      dockerfile: {dockerfile}
      {more}
push:
  - prefect_docker.deployments.steps.push_docker_image:
      image_name: "{{{{ build.image_name }}}}"
      tag: "{{{{ build.tag }}}}"
      additional_tags: "{{{{ build.additional_tags }}}}"
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: /opt/prefect/project
deployments:
  - name: {name}
    entrypoint: flows.py:hello
    work_pool:
      name: {pool}
      job_variables:
        image: "{{{{ build.image }}}}"
"""


def test_prefect_deploy_with_steps_that_generate_the_dockerfile_and_tag_twice(
    prefect: Prefect, registry: Registry, project: MakeProject
) -> None:
    image, pool = f"{registry.address}/rounds/yaml", prefect.worker("containerd")
    more = "additional_tags: [v2, latest]"
    project("containerd").deploy_all(STEPS.format(image=image, dockerfile="auto", more=more, name="yaml", pool=pool))

    tags = [f"{image}:{tag}" for tag in ("v1", "v2", "latest")]
    assert all(Published(tag).is_one_manifest for tag in tags)
    _gone(prefect.engines["containerd"], *tags)
    _assert_completed(prefect.finish("hello/yaml"), "hello from x86_64")


def test_prefect_deploy_with_a_step_that_turns_attestations_off_while_the_setting_is_off(
    prefect: Prefect, registry: Registry, project: MakeProject
) -> None:
    image, pool = f"{registry.address}/rounds/yaml-per-image", prefect.worker("containerd")
    mine = project("containerd", setting="false")
    (mine.folder / "Dockerfile").write_text(f"FROM {get_prefect_image_name()}\nCOPY . /opt/prefect/project/\n")
    more = "provenance: false\n      sbom: false"
    printed = mine.deploy_all(
        STEPS.format(image=image, dockerfile="Dockerfile", more=more, name="yaml-per-image", pool=pool)
    )
    assert "[internal] load build definition" in printed
    assert Published(f"{image}:v1").is_one_manifest
    _gone(prefect.engines["containerd"], f"{image}:v1")
    _assert_completed(prefect.finish("hello/yaml-per-image"), "hello from x86_64")


OTHER_PLATFORM = """
    image = DockerImage("{image}", tag="v1", platform="linux/arm64")
    hello.deploy(name="{name}", work_pool_name="{pool}", image=image)
"""


def test_an_image_for_another_platform_runs_there(prefect: Prefect, registry: Registry, project: MakeProject) -> None:
    """This is the reverse of an Arm laptop and an amd64 cloud. Another engine takes the place of the cloud."""
    image, pool = f"{registry.address}/rounds/arm64-on", prefect.worker("graphdriver")
    prefect.engines["containerd"].run("docker", "pull", get_prefect_image_name())
    project("containerd").script(OTHER_PLATFORM.format(image=image, name="arm64-on", pool=pool))

    published = Published(f"{image}:v1")
    assert published.is_one_manifest
    assert all(published.layers_match())
    _assert_completed(prefect.finish("hello/arm64-on"), "hello from aarch64")


def test_setting_off_an_image_for_another_platform_is_deployed_and_cannot_be_pulled(
    prefect: Prefect, registry: Registry, project: MakeProject
) -> None:
    image, pool = f"{registry.address}/rounds/arm64-off", prefect.worker("graphdriver")
    prefect.engines["containerd"].run("docker", "pull", get_prefect_image_name())
    project("containerd", setting="false").script(OTHER_PLATFORM.format(image=image, name="arm64-off", pool=pool))

    run = prefect.finish("hello/arm64-off")
    assert run.state == "Crashed"
    # Workers of old versions of Prefect only report that the image does not exist.
    with pytest.raises(CommandFailed, match="layers from manifest don't match image configuration"):
        prefect.engines["graphdriver"].run("docker", "pull", f"{image}:v1")
