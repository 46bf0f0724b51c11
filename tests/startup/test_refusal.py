"""If a build cannot be taken over and the setting is on, each way to build raises Prefect's `BuildError`."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from support.environment import SETTING, Environment, holding, write

BUILD_IMAGE = "from prefect.utilities.dockerutils import build_image; build_image('.')"
DOCKER_IMAGE = "from prefect.docker import DockerImage; DockerImage('app', 'v1', 'Dockerfile').build()"
STEP = "from prefect_docker.deployments import steps; steps.build_docker_image('app', dockerfile='Dockerfile')"
IMAGES_BUILD = """
from prefect.utilities.dockerutils import docker_client
with docker_client() as client:
    client.images.build(path=".")
"""
BUILDX = (
    "from prefect.docker import DockerImage; DockerImage('app', 'v1', 'Dockerfile', build_backend='buildx').build()"
)

WAYS = {
    "build_image": BUILD_IMAGE,
    "DockerImage": DOCKER_IMAGE,
    "the step": STEP,
    "client.images.build": IMAGES_BUILD,
}

PROGRAM = """
from prefect.utilities.dockerutils import BuildError
for _ in range(2):
    try:
        exec({way!r})
    except BuildError as error:
        print("BuildError:", error)
    except Exception as error:
        print(type(error).__name__)
"""


def refusals(way: str) -> list[str]:
    """Build twice in this way, and return the errors."""
    import pytest
    from prefect.utilities.dockerutils import BuildError

    found = []
    for _ in range(2):
        with pytest.raises(BuildError) as refused:
            exec(way, {})
        found.append(str(refused.value))
    return found


# Replacements for the module that patches a class, by the time at which they fail.
BROKEN = {
    "before docker-py is imported": "raise RuntimeError('broken')",
    "when docker-py has been imported": "def install(module): raise RuntimeError('broken')",
}


@pytest.fixture(autouse=True)
def _dockerfile(from_wheel: Environment) -> None:
    write(from_wheel.project, {"Dockerfile": "FROM scratch"})


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_docker_py_that_cannot_be_patched_refuses_builds(from_wheel: Environment, broken: str) -> None:
    variables = {SETTING: "true", "DOCKER_HOST": "unix:///nowhere"}
    with holding(from_wheel.package / "patches/docker_py_client.py", broken):
        found = from_wheel.call_each([(refusals, (way,)) for way in WAYS.values()], variables=variables)
    refused = f"{SETTING} is set, but prefect-docker-attest cannot take over this build: broken."
    for way, errors in zip(WAYS, found, strict=True):
        lines = [error.splitlines() for error in errors]
        assert [line[0] for line in lines] == [refused] * 2, way
        assert [line[1].partition(" ")[0] for line in lines] == ["TIP", "TIP"], way


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    ("settings", "subject"),
    [
        ({"PREFECT_DOCKER_PLATFORM": "linux/amd64"}, "PREFECT_DOCKER_PLATFORM is"),
        (
            {"PREFECT_DOCKER_PLATFORM": "linux/amd64", SETTING: "true", "PREFECT_DOCKER_CACHE_TO": "type=inline"},
            f"{SETTING} and PREFECT_DOCKER_PLATFORM and PREFECT_DOCKER_CACHE_TO are",
        ),
    ],
    ids=["one setting", "three settings"],
)
def test_the_settings_that_are_set_are_named(
    from_wheel: Environment, broken: str, settings: dict[str, str], subject: str
) -> None:
    variables = {**settings, "DOCKER_HOST": "unix:///nowhere"}
    with holding(from_wheel.package / "patches/docker_py_client.py", broken):
        output = from_wheel.output("-c", PROGRAM.format(way=BUILD_IMAGE), variables=variables).splitlines()
    refused = f"BuildError: {subject} set, but prefect-docker-attest cannot take over this build: broken."
    assert output[::2] == [refused] * 2, output


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_setting_off_prefect_builds_as_without_the_package(from_wheel: Environment, broken: str) -> None:
    variables = {"DOCKER_HOST": "unix:///nowhere"}
    program = "".join(PROGRAM.format(way=way) for way in (BUILD_IMAGE, IMAGES_BUILD))
    with holding(from_wheel.package / "patches/docker_py_client.py", broken):
        # Docker is not running.
        assert from_wheel.output("-c", program, variables=variables) == "RuntimeError\n" * 4


@pytest.mark.skipif(
    not any(find_spec(name) for name in ("prefect._internal.buildx", "prefect.docker._buildx")),
    reason="this Prefect has no build_backend",
)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_python_on_whales_that_cannot_be_patched_refuses_builds(from_wheel: Environment, broken: str) -> None:
    variables = {SETTING: "true", "DOCKER_HOST": "unix:///nowhere"}
    with holding(from_wheel.package / "patches/build_backend.py", broken):
        output = from_wheel.output("-c", PROGRAM.format(way=BUILDX), variables=variables).splitlines()
    refused = f"BuildError: {SETTING} is set, but prefect-docker-attest cannot take over this build: broken."
    assert output[::2] == [refused] * 2, output
    assert [line.partition(" ")[0] for line in output[1::2]] == ["TIP", "TIP"]


@pytest.mark.parametrize("variable", [SETTING, "PREFECT_DOCKER_PUSH_FROM_BUILDER"])
def test_an_invalid_boolean_is_reported_if_the_setting_is_not_registered(
    from_wheel: Environment, without_us: Environment, variable: str
) -> None:
    # Prefect is imported first, so it does not know the setting.
    program = f"import prefect.utilities.dockerutils, prefect_docker_attest\n{PROGRAM.format(way=BUILD_IMAGE)}"
    mocked = "import docker; docker.APIClient._retrieve_server_version = lambda _: '1.44'\n"
    variables = {"PYTHONPATH": str(from_wheel.package.parent), variable: "maybe", "DOCKER_HOST": "unix:///nowhere"}
    output = without_us.output("-c", f"{mocked}{program}", variables=variables)
    assert (
        output
        == f"BuildError: {variable}='maybe' is not true or false (environment).\nTIP Set it to true or false.\n" * 2
    )


AFTER_A_RELOAD = """
import importlib, sys
from prefect.utilities import dockerutils
import prefect_docker_attest
try:
    dockerutils.build_image(".", squash=True)
except dockerutils.BuildError as error:
    first = type(error)
assert first is prefect_docker_attest.OptionError, first
{again}
from prefect.utilities import dockerutils
assert not issubclass(first, dockerutils.BuildError)
assert prefect_docker_attest.OptionError is first
try:
    dockerutils.build_image(".", squash=True)
except dockerutils.BuildError as error:
    print(type(error.__cause__) is first, error)
"""


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize(
    "again",
    [
        "importlib.reload(dockerutils)",
        "del sys.modules[dockerutils.__name__], sys.modules['prefect.utilities'].dockerutils",
    ],
    ids=["reloaded", "imported again"],
)
def test_callers_can_catch_the_error_class_of_a_reloaded_module(from_wheel: Environment, again: str) -> None:
    output = from_wheel.output("-c", AFTER_A_RELOAD.format(again=again), variables={SETTING: "true"})
    assert output.startswith("True squash=True is not supported: BuildKit does not squash layers."), output
