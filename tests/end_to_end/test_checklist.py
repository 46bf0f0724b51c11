"""The checklist of issue 19337: one test for each row, with strict pullers instead of clouds.

The users have an Arm laptop and amd64 machines in a cloud. Here it is the reverse: this machine is amd64, and the
images are for linux/arm64. Each image is pulled by a program that did not build it:

- containerd, for all platforms, like clusters. It refuses layers that do not match the config.
- an engine with the other image store.
- a puller that accepts only a single manifest, like Lambda and old Container Instances, and compares all digests.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import build_image, docker_client
from prefect_docker.deployments.steps import build_docker_image, push_docker_image

import prefect_docker_attest
from engines.published import Published
from support.names import BUSYBOX, PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine, PrivateDocker, Registry
    from support.prefect_server import MakeProject, Prefect

# The time of the first test includes making the base image and starting a server.
pytestmark = pytest.mark.timeout(900)

ARM64, AMD64 = ("linux/arm64", "aarch64"), ("linux/amd64", "x86_64")
"""A platform, and the output of `uname -m` on it."""

# The members of an image's config that the user sets. (BuildKit keeps a slash at the end of WORKDIR, without meaning.)
CONFIG = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "User", "Volumes", "WorkingDir")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context like those that Prefect generates: FROM, then COPY."""
    (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/flows/\nWORKDIR /opt/prefect/flows\n")
    (tmp_path / "flow.py").write_text("print('hello')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _push(image: str) -> None:
    with docker_client() as client:
        assert '"error"' not in client.api.push(image)


class Clouds:
    """Pulls and runs an image that another engine built."""

    def __init__(self, docker: PrivateDocker, builder: Engine) -> None:
        self._other = next(engine for engine in docker.engines.values() if engine.store != builder.store)

    def containerd(self, image: str) -> None:
        """Pull like a cluster."""
        cluster = "--namespace=cluster"
        self._other.ctr(cluster, "images", "pull", "--plain-http", "--all-platforms", image)
        self._other.ctr(cluster, "images", "rm", "--sync", image)

    def engine(self, image: str, platform: tuple[str, str]) -> None:
        """Pull and run like Docker on another machine."""
        flags = ("--pull=always", f"--platform={platform[0]}")
        assert self._other.output_of(*flags, image, "uname", "-m") == f"{platform[1]}\n"
        # Docker's containerd store does not pull a layer that it has unpacked from another blob, and cannot push it.
        self._other.run("docker", "image", "rm", image)

    def strict(self, image: str, platform: tuple[str, str]) -> None:
        """Accept only a single manifest."""
        published = Published(image)
        assert published.is_one_manifest, "image manifest, config or layer media type is not supported"
        assert "{os}/{architecture}".format(**published.config()) == platform[0]
        assert all(published.layers_match())

    def all(self, image: str, platform: tuple[str, str]) -> None:
        """Pull in each of these ways."""
        self.containerd(image)
        self.engine(image, platform)
        self.strict(image, platform)


@pytest.fixture
def clouds(private_docker: PrivateDocker, engine: Engine) -> Clouds:
    """A puller of images that this engine builds. The engine has the base image for its own platform."""
    engine.run("docker", "pull", "--platform=linux/amd64", BUSYBOX)
    return Clouds(private_docker, engine)


@pytest.fixture
def cross_built(engine: Engine, registry: Registry, clouds: Clouds, context: Path, setting: Setting) -> str:
    """An image for the other platform, built and pushed with the setting on."""
    assert clouds
    (context / "store.txt").write_text(engine.store)
    image = DockerImage(
        f"{registry.address}/checklist/cross", tag=engine.store, dockerfile="Dockerfile", platform=ARM64[0]
    )
    with setting(True):
        image.build()
        image.push()
    return image.reference


def test_row_1_ecs_containerd_pulls_an_image_of_the_other_platform(clouds: Clouds, cross_built: str) -> None:
    clouds.containerd(cross_built)


def test_row_2_cloud_run_another_engine_pulls_and_runs_an_image_of_the_other_platform(
    clouds: Clouds, cross_built: str
) -> None:
    clouds.engine(cross_built, ARM64)


def test_row_3_aci_a_puller_of_single_manifests_accepts_an_image_of_the_other_platform(
    clouds: Clouds, cross_built: str
) -> None:
    clouds.strict(cross_built, ARM64)


def test_row_4_amd64_to_amd64_the_image_is_as_the_classic_builder_made_it(
    engine: Engine, registry: Registry, clouds: Clouds, context: Path, setting: Setting
) -> None:
    images: dict[bool, dict[str, Any]] = {}
    for value in (False, True):
        name = f"{registry.address}/checklist/native-{engine.store}:{value}".lower()
        with setting(value):
            build_image(context, tag=name)
            _push(name)
        inspected = json.loads(engine.run("docker", "image", "inspect", name).stdout)[0]
        images[value] = {key: inspected["Config"].get(key) or None for key in CONFIG}
        clouds.all(name, AMD64)
        assert engine.output_of(name, "cat", "flow.py") == "print('hello')\n"
    assert images[True] == images[False]


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize(
    # By default, buildx adds a provenance attestation.
    "wanted",
    [{"provenance": "mode=max"}, {"platforms": ["linux/amd64"]}],
    ids=["asked for", "not refused"],
)
def test_row_5_native_builds_have_attestations_when_they_are_wanted(
    private_docker: PrivateDocker, registry: Registry, context: Path, setting: Setting, wanted: dict[str, Any]
) -> None:
    """Engines run such an image, but the strict puller refuses it."""
    clouds = Clouds(private_docker, private_docker.engines["containerd"])
    name = f"{registry.address}/checklist/attested:{next(iter(wanted))}"
    with setting(False):
        build_image(context, tag=name, **wanted)
        _push(name)
    assert Published(name).platforms() == ["linux/amd64", "unknown/unknown"]
    clouds.engine(name, AMD64)
    with pytest.raises(AssertionError, match="not supported"):
        clouds.strict(name, AMD64)


@pytest.mark.usefixtures("engine")
def test_row_6_without_the_parameters_the_image_is_the_one_that_prefect_builds(context: Path, setting: Setting) -> None:
    output = io.StringIO()
    with setting(False):
        ours = build_image(context, tag=f"{PREFIX}/checklist:ours", stream_progress_to=output)
        prefect_docker_attest.uninstall()
        try:
            # The build uses the classic builder's cache, which has no step that differs.
            alone = build_image(context, tag=f"{PREFIX}/checklist:alone")
        finally:
            prefect_docker_attest.install()
    assert "Step 1/" in output.getvalue()
    assert ours == alone


@pytest.mark.usefixtures("context", "switched_on")
def test_row_7_prefect_yaml_the_steps_build_and_push_an_image_that_all_can_pull(
    engine: Engine, registry: Registry, clouds: Clouds
) -> None:
    name = f"{registry.address}/checklist/steps-{engine.store}"
    built = build_docker_image(name, tag="v1", dockerfile="Dockerfile", platform=ARM64[0], ignore_cache=True)
    push_docker_image(name, tag="v1", ignore_cache=True)
    clouds.all(built["image"], ARM64)


def test_row_8_python_each_way_to_build_makes_an_image_that_all_can_pull(
    engine: Engine, registry: Registry, clouds: Clouds, prefect: Prefect, project: MakeProject
) -> None:
    names = [f"{registry.address}/checklist/python-{engine.store}:{number}" for number in range(5)]
    mine = project(engine.store)
    (mine.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/prefect/project/\n")
    mine.script(f"""
        from pathlib import Path
        from prefect.utilities.dockerutils import ImageBuilder, build_image, docker_client, push_image

        def image(number):
            name = f"{registry.address}/checklist/python-{engine.store}"
            return DockerImage(name, tag=str(number), dockerfile="Dockerfile", platform="{ARM64[0]}")

        image(0).build()
        image(0).push()
        hello.deploy("python", work_pool_name="{prefect.worker(engine.store)}", image=image(1))
        deploy(hello.to_deployment("python"), work_pool_name="{prefect.worker(engine.store)}", image=image(2))
        build_image(Path.cwd(), tag=image(3).reference, platform="{ARM64[0]}")
        with ImageBuilder("{BUSYBOX}", base_directory=Path.cwd(), platform="{ARM64[0]}") as builder:
            builder.copy("flows.py", "/opt/prefect/project/")
            built = builder.build()
        with docker_client() as client:
            client.api.push(image(3).reference)
            client.api.tag(built, image(4).name, image(4).tag)
            client.api.push(image(4).reference)
    """)
    for name in names:
        clouds.all(name, ARM64)
