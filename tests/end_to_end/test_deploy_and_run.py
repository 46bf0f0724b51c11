"""Whole rounds: an image is built, pushed and gone; a worker pulls it, and in its container the flow run completes.

Deployments are made as users make them, by a script or `prefect deploy`, with nothing but the variable in the
environment. The container has no prefect-docker-attest, as no image of Prefect has; the variable comes to it with
the worker's settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.utilities.dockerutils import get_prefect_image_name

from debian_machine import CommandFailed
from published import Published

if TYPE_CHECKING:
    from prefect_server import MakeProject, Prefect, Run
    from private_docker import Engine, Registry, Store

# Of the first, that includes making the base image and starting a server.
pytestmark = pytest.mark.timeout(900)


def _gone(engine: Engine, *images: str) -> None:
    """Remove images from an engine, so that whoever runs them has to pull them."""
    for image in images:
        engine.run("docker", "image", "rm", "--force", image)
        assert engine.run("docker", "image", "inspect", image, check=False).returncode


def _assert_completed(run: Run, greeting: str) -> None:
    assert run.state == "Completed", run.said
    assert greeting in run.said


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
    assert "attestations disabled: True" in run.said
    assert "the package is there: False" in run.said


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
    # Run by an engine of the other image store than the one that built it.
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
    """The mirror image of a laptop with an Arm processor and a cloud without; the cloud is another engine."""
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
    # Of old Prefect's workers one hears no more than that the image is not there.
    with pytest.raises(CommandFailed, match="layers from manifest don't match image configuration"):
        prefect.engines["graphdriver"].run("docker", "pull", f"{image}:v1")
