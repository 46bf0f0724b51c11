"""Future versions of Prefect: copies of the installed version with possible changes.

Prefect itself works in each copy. The setting works if possible. Otherwise a build with the setting on is an error.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect_docker.deployments.steps import build_docker_image

from engines.published import Published
from support.names import BUSYBOX, PREFIX
from support.prefect_server import PREFECT, SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.private import Engine, Registry

# A user's script that builds in several ways of this version. What it prints for a way begins with the name of the way.
SCRIPT = f"""\
import sys
from pathlib import Path

import prefect.cli
from prefect import flow
from prefect.settings import get_current_settings

assert get_current_settings().api.url is None
for way in sys.argv[1:]:
    print("\\n===", way, flush=True)
    if way == "build_image":
        from prefect.utilities.dockerutils import build_image
        build_image(Path.cwd(), tag="{PREFIX}/future:build_image", stream_progress_to=sys.stdout)
    elif way == "DockerImage":
        from prefect.docker import DockerImage
        DockerImage("{PREFIX}/future", tag=way, dockerfile="Dockerfile", stream_progress_to=sys.stdout).build()
    elif way == "step":
        from prefect_docker.deployments.steps import build_docker_image
        build_docker_image("{PREFIX}/future", tag="step", dockerfile="Dockerfile")
    elif way == "backend":
        from prefect.docker import DockerImage
        DockerImage("{PREFIX}/future", tag="backend", dockerfile="Dockerfile", build_backend="buildx").build()
    sys.stdout.flush()
"""
WAYS = ("build_image", "DockerImage", "step")

BUILDX, CLASSIC = "[internal] load build definition", "Step 1/"


class FuturePrefect:
    """A folder with a changed Prefect, which is imported instead of the installed one."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        for name in ("prefect", "prefect_docker"):
            spec = find_spec(name)
            assert spec
            assert spec.origin
            # The 2000 files, including compiled modules, are links, because they are only imported.
            shutil.copytree(Path(spec.origin).parent, folder / name, copy_function=os.symlink)
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /opt/\n")
        (self.project / "script.py").write_text(SCRIPT)
        self._environment = {
            **{name: value for name, value in environment.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": str(folder),
            "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def change(self, file: str, change: Callable[[str], str]) -> None:
        """Change a file. The change must have an effect: otherwise Prefect already has it."""
        path = self._folder / file
        before = path.read_text()
        after = change(before)
        assert after != before
        path.unlink()
        path.write_text(after)

    def rename(self, old: str, new: str, *packages: str) -> None:
        """Rename an identifier in all files."""
        found = [
            str(path.relative_to(self._folder))
            for package in packages
            for path in (self._folder / package).rglob("*.py")
            if re.search(rf"\b{old}\b", path.read_text())
        ]
        assert found
        for file in found:
            self.change(file, lambda text: re.sub(rf"\b{old}\b", new, text))

    def run(self, *command: str, setting: str | None = None) -> str:
        """Run a command, and return its output."""
        environment = self._environment if setting is None else {**self._environment, SETTING: setting}
        ran = subprocess.run(
            command,
            env=environment,
            cwd=self.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return ran.stdout

    def build(self, way: str, setting: str | None = None) -> str:
        """Run the user's script, and return its output."""
        (printed,) = self.build_each(way, setting=setting)
        return printed

    def build_each(self, *ways: str, setting: str | None = None) -> list[str]:
        """Run the user's script once for these ways to build, and return its output for each."""
        before, *printed = self.run(sys.executable, "script.py", *ways, setting=setting).split("\n=== ")
        assert [text.partition("\n")[0] for text in printed] == [*ways], before + printed[-1] if printed else before
        return [before + text for text in printed]

    def assert_whole(self, *ways: str, setting: str | None = None) -> None:
        """Check that with the setting off everything works as without this package."""
        for printed in self.build_each(*ways, setting=setting):
            assert CLASSIC in printed
            assert "Traceback" not in printed
            assert "prefect-docker-attest" not in printed

    def assert_switched(self, *ways: str, setting: str | None = "true") -> None:
        """Check that with the setting on images are built without attestations."""
        for printed in self.build_each(*ways, setting=setting):
            assert BUILDX in printed
            assert "Successfully built" in printed


@pytest.fixture
def future(some_engine: Engine, tmp_path: Path) -> FuturePrefect:
    return FuturePrefect(tmp_path, some_engine.environment)


with_build_backend = pytest.mark.skipif(
    not (
        any(find_spec(name) for name in ("prefect._internal.buildx", "prefect.docker._buildx"))
        and find_spec("python_on_whales")
    ),
    reason="this Prefect has no build_backend, or python-on-whales is missing",
)

ROOT, BASE = "prefect/settings/models/root.py", "prefect/settings/base.py"


def _with_a_group(field: str, kind: str = "FutureDockerSettings") -> Callable[[str], str]:
    """Return a change that adds a group `docker` with this field to Prefect's root settings."""
    group = f"""\
class FutureDockerSettings(PrefectBaseSettings):
    model_config = build_settings_config(("docker",))
    {field}


class Settings("""

    def change(root: str) -> str:
        head, class_, body = root.partition("class Settings(")
        base, config, rest = body.partition("    model_config")
        return (
            f"{head}{group if class_ else ''}{base}    docker: {kind} = Field(default_factory={kind})\n{config}{rest}"
        )

    return change


def test_a_group_docker_in_prefect_gets_the_setting(future: FuturePrefect) -> None:
    future.change(ROOT, _with_a_group('default_registry: str = Field(default="")'))
    future.assert_whole("build_image")
    future.assert_switched("build_image")

    future.run(PREFECT, "config", "set", f"{SETTING}=true", "PREFECT_DOCKER_DEFAULT_REGISTRY=mine")
    future.assert_switched("build_image", setting=None)
    shown = future.run(PREFECT, "config", "view")
    assert f"{SETTING}='" in shown
    assert "PREFECT_DOCKER_DEFAULT_REGISTRY='mine'" in shown


def test_a_setting_of_this_name_in_prefect_is_used(future: FuturePrefect) -> None:
    future.change(ROOT, _with_a_group("disable_attestations: bool = Field(default=False)"))
    future.assert_whole("build_image")
    future.assert_switched("build_image")


def test_a_field_docker_that_is_not_a_group_is_kept_and_the_setting_is_read_separately(future: FuturePrefect) -> None:
    future.change(ROOT, _with_a_group("unused: str = Field(default='')", kind="str"))
    future.assert_whole("build_image")
    future.assert_switched("build_image")


def test_root_settings_of_another_type_are_kept_and_the_setting_is_read_separately(future: FuturePrefect) -> None:
    # Its base class is not that of the groups.
    groups = "from prefect.settings.base import PrefectBaseSettings\n\n\nclass RootBase("
    base = (future.project.parent / BASE).read_text().replace("class PrefectBaseSettings(", groups)
    (future.project.parent / "prefect/settings/root_base.py").write_text(base)
    class_ = "from prefect.settings.root_base import RootBase\n\n\nclass Settings("
    future.change(ROOT, lambda text: text.replace("class Settings(PrefectBaseSettings", f"{class_}RootBase"))
    future.assert_whole("build_image")
    future.assert_switched("build_image")


def test_root_settings_in_another_module_are_kept_and_the_setting_is_read_separately(future: FuturePrefect) -> None:
    settings = future.project.parent / "prefect/settings"
    (settings / "root.py").write_text((settings / "models/root.py").read_text().replace("from .", "from .models."))
    (settings / "models/root.py").unlink()
    future.rename(r"prefect\.settings\.models\.root", "prefect.settings.root", "prefect")
    future.assert_whole("build_image")
    future.assert_switched("build_image")


def test_without_the_base_class_of_settings_the_variable_is_read(future: FuturePrefect) -> None:
    future.rename("build_settings_config", "settings_config", "prefect")
    future.assert_switched(*WAYS)
    # A setting in a profile cannot be read, and an error says so. All other behavior is the same.
    printed = future.build("build_image")
    assert CLASSIC in printed
    assert f"It reads {SETTING} only from the environment" in printed
    assert "Traceback" not in printed


def test_a_renamed_docker_client_changes_nothing(future: FuturePrefect) -> None:
    future.rename("docker_client", "engine_client", "prefect", "prefect_docker")
    future.assert_whole(*WAYS)
    future.assert_switched(*WAYS)


@with_build_backend
def test_a_renamed_build_function_of_the_build_backend_changes_nothing(future: FuturePrefect) -> None:
    future.rename("_buildx_build_once", "_buildx_build_again", "prefect")
    assert "exporting attestation manifest" in future.build("backend")
    printed = future.build("backend", "true")
    assert BUILDX in printed
    assert "exporting attestation manifest" not in printed
    assert "Built image: sha256:" in printed


BACKEND = "PREFECT_DOCKER_BUILD_BACKEND"


def _with_a_default_of_the_setting(parameter: str) -> Callable[[str], str]:
    """Return a change that makes Prefect's setting the default of this parameter `build_backend`."""
    check = '    if build_backend not in ("docker-py", "buildx"):'
    default = """\
    if build_backend is None:
        from prefect.settings import get_current_settings
        build_backend = get_current_settings().docker.build_backend
"""

    def change(text: str) -> str:
        assert text.count(parameter) >= 1
        text = text.replace(parameter, f"{parameter.partition(':')[0]}: str | None = None,")
        indents = re.findall(rf"^( *){re.escape(check)}", text, re.MULTILINE)
        assert indents
        for indent in set(indents):
            lines = "".join(f"{indent}{line}\n" for line in default.splitlines())
            text = text.replace(f"\n{indent}{check}", f"\n{lines}{indent}{check}")
        return text

    return change


@pytest.fixture
def buildx_by_default(future: FuturePrefect) -> FuturePrefect:
    """A change that Prefect has announced: a setting for the backend (PrefectHQ/prefect#21279), default buildx."""
    if "build_backend" not in inspect.signature(build_docker_image).parameters:
        pytest.skip("the step of this prefect-docker has no build_backend")
    future.change(ROOT, _with_a_group('build_backend: str = Field(default="buildx")'))
    future.change(
        "prefect/docker/docker_image.py",
        _with_a_default_of_the_setting('build_backend: Literal["docker-py", "buildx"] = "docker-py",'),
    )
    future.change(
        "prefect_docker/deployments/steps.py", _with_a_default_of_the_setting('build_backend: str = "docker-py",')
    )
    return future


@with_build_backend
@pytest.mark.parametrize("way", ["DockerImage", "step"])
def test_buildx_as_prefects_default_builds_without_attestations(
    buildx_by_default: FuturePrefect, some_engine: Engine, registry: Registry, way: str
) -> None:
    def is_one_manifest() -> bool:
        name = f"{registry.address}/future:{way.lower()}"
        some_engine.run("docker", "tag", f"{PREFIX}/future:{way}", name)
        some_engine.run("docker", "push", name)
        return Published(name).is_one_manifest

    off = buildx_by_default.build(way)
    assert CLASSIC not in off
    assert "Traceback" not in off
    assert not is_one_manifest(), "Prefect's own buildx build carries an attestation"

    on = buildx_by_default.build(way, "true")
    assert "Traceback" not in on
    assert is_one_manifest()


@with_build_backend
def test_prefects_setting_of_the_backend_works_with_ours(buildx_by_default: FuturePrefect) -> None:
    buildx_by_default.run(PREFECT, "config", "set", f"{SETTING}=true", f"{BACKEND}=docker-py")
    buildx_by_default.assert_switched("DockerImage", "step", setting=None)
    shown = buildx_by_default.run(PREFECT, "config", "view")
    assert f"{SETTING}='" in shown
    assert f"{BACKEND}='docker-py'" in shown

    buildx_by_default.assert_whole("DockerImage", "step", setting="false")
