"""The checklist of the problem, a test for each row, with strict pullers in the place of the clouds.

An Arm laptop and a cloud of amd64 machines are, mirrored, this machine and one that runs linux/arm64. The image
is pulled by whoever did not build it:

- containerd, for all platforms, as clusters do: it refuses layers that are not what the config says;
- an engine of the other image store;
- one that takes a single manifest only, as Lambda and old Container Instances do, and compares all digests.
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
from published import Published

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from prefect_server import MakeProject, Prefect
    from private_docker import Engine, PrivateDocker, Registry

# Of the first that deploys, that includes making the base image and starting a server.
pytestmark = pytest.mark.timeout(900)

ARM64, AMD64 = ("linux/arm64", "aarch64"), ("linux/amd64", "x86_64")
"""A platform, and what `uname -m` says there."""

# Of an image's config, what is the user's. (BuildKit leaves the slash at the end of a WORKDIR, which means nothing.)
CONFIG = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "User", "Volumes", "WorkingDir")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A context like those that Prefect generates: FROM, then COPY."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /opt/prefect/flows/\nWORKDIR /opt/prefect/flows\n")
    (tmp_path / "flow.py").write_text("print('hello')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _push(image: str) -> None:
    with docker_client() as client:
        assert '"error"' not in client.api.push(image)


class Clouds:
    """Who pulls and runs what an engine built."""

    def __init__(self, docker: PrivateDocker, builder: Engine) -> None:
        self._other = next(engine for engine in docker.engines.values() if engine.store != builder.store)

    def containerd(self, image: str) -> None:
        """Pull as a cluster does."""
        cluster = "--namespace=cluster"
        self._other.ctr(cluster, "images", "pull", "--plain-http", "--all-platforms", image)
        self._other.ctr(cluster, "images", "rm", "--sync", image)

    def engine(self, image: str, platform: tuple[str, str]) -> None:
        """Pull and run as another machine's Docker does."""
        run = ("docker", "run", "--rm", "--pull=always", f"--platform={platform[0]}", image, "uname", "-m")
        assert self._other.run(*run).stdout.split()[-1] == platform[1]
        # Docker's containerd store fetches no layer that it has unpacked from another blob, and cannot push it then.
        self._other.run("docker", "image", "rm", image)

    def strict(self, image: str, platform: tuple[str, str]) -> None:
        """Take a single manifest only."""
        published = Published(image)
        assert published.is_one_manifest, "image manifest, config or layer media type is not supported"
        assert "{os}/{architecture}".format(**published.config()) == platform[0]
        assert all(published.layers_match())

    def all(self, image: str, platform: tuple[str, str]) -> None:
        """Pull as each of them does."""
        self.containerd(image)
        self.engine(image, platform)
        self.strict(image, platform)


@pytest.fixture
def clouds(private_docker: PrivateDocker, engine: Engine) -> Clouds:
    """Who pulls what this engine built, which has the base image for its own platform."""
    engine.run("docker", "pull", "--platform=linux/amd64", "busybox")
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


def test_row_3_aci_who_takes_a_single_manifest_only_takes_an_image_of_the_other_platform(
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
        assert engine.run("docker", "run", "--rm", name, "cat", "flow.py").stdout == "print('hello')\n"
    assert images[True] == images[False]


@pytest.mark.usefixtures("containerd_engine")
@pytest.mark.parametrize(
    # Left alone, buildx attests to a build's provenance.
    "wanted",
    [{"provenance": "mode=max"}, {"platforms": ["linux/amd64"]}],
    ids=["asked for", "not refused"],
)
def test_row_5_native_builds_have_attestations_when_they_are_wanted(
    private_docker: PrivateDocker, registry: Registry, context: Path, setting: Setting, wanted: dict[str, Any]
) -> None:
    """And such an image, which engines run, is one that the strict puller refuses."""
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
def test_row_6_who_names_neither_parameter_gets_the_image_that_prefect_alone_builds(
    context: Path, setting: Setting
) -> None:
    output = io.StringIO()
    with setting(False):
        ours = build_image(context, tag="checklist:ours", stream_progress_to=output)
        prefect_docker_attest.uninstall()
        try:
            # From the classic builder's cache, where a step that differs would not be found.
            alone = build_image(context, tag="checklist:alone")
        finally:
            prefect_docker_attest.install()
    assert "Step 1/" in output.getvalue()
    assert ours == alone


@pytest.mark.usefixtures("context", "switched_on")
def test_row_7_prefect_yaml_the_steps_build_and_push_what_all_pull(
    engine: Engine, registry: Registry, clouds: Clouds
) -> None:
    name = f"{registry.address}/checklist/steps-{engine.store}"
    built = build_docker_image(name, tag="v1", dockerfile="Dockerfile", platform=ARM64[0], ignore_cache=True)
    push_docker_image(name, tag="v1", ignore_cache=True)
    clouds.all(built["image"], ARM64)


def test_row_8_python_each_way_to_build_makes_what_all_pull(
    engine: Engine, registry: Registry, clouds: Clouds, prefect: Prefect, project: MakeProject
) -> None:
    names = [f"{registry.address}/checklist/python-{engine.store}:{number}" for number in range(5)]
    mine = project(engine.store)
    (mine.folder / "Dockerfile").write_text("FROM busybox\nCOPY . /opt/prefect/project/\n")
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
        with ImageBuilder("busybox", base_directory=Path.cwd(), platform="{ARM64[0]}") as builder:
            builder.copy("flows.py", "/opt/prefect/project/")
            built = builder.build()
        with docker_client() as client:
            client.api.push(image(3).reference)
            client.api.tag(built, image(4).name, image(4).tag)
            client.api.push(image(4).reference)
    """)
    for name in names:
        clouds.all(name, ARM64)
