"""Tomorrow's Prefect: copies of the installed one with what a later version may change.

Prefect stays whole in each, the setting works where it can, and where it cannot a build with the setting on says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prefect_server import PREFECT, SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from private_docker import Engine

# A user's script, which builds in the ways there are.
SCRIPT = """\
import sys
from pathlib import Path

import prefect.cli
from prefect import flow
from prefect.settings import get_current_settings

assert get_current_settings().api.url is None
if sys.argv[1] == "build_image":
    from prefect.utilities.dockerutils import build_image
    build_image(Path.cwd(), tag="tomorrow:build_image", stream_progress_to=sys.stdout)
elif sys.argv[1] == "DockerImage":
    from prefect.docker import DockerImage
    DockerImage("tomorrow", tag="image", dockerfile="Dockerfile", stream_progress_to=sys.stdout).build()
elif sys.argv[1] == "step":
    from prefect_docker.deployments.steps import build_docker_image
    build_docker_image("tomorrow", tag="step", dockerfile="Dockerfile")
elif sys.argv[1] == "backend":
    from prefect.docker import DockerImage
    DockerImage("tomorrow", tag="backend", dockerfile="Dockerfile", build_backend="buildx").build()
"""
WAYS = ("build_image", "DockerImage", "step")

BUILDX, CLASSIC = "[internal] load build definition", "Step 1/"
REFUSED = f"{SETTING} is on, but prefect-docker-attest cannot switch the builds of this version of Prefect"


class Tomorrow:
    """A folder with a changed Prefect, which is imported in the place of the installed one."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        for name in ("prefect", "prefect_docker"):
            spec = find_spec(name)
            assert spec
            assert spec.origin
            # Links, compiled modules among them: there are 2000 files, and importing is all that is done with them.
            shutil.copytree(Path(spec.origin).parent, folder / name, copy_function=os.symlink)
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "Dockerfile").write_text("FROM busybox\nCOPY . /opt/\n")
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
        """Change a file; a change that changes nothing means that tomorrow has come."""
        path = self._folder / file
        before = path.read_text()
        after = change(before)
        assert after != before
        path.unlink()
        path.write_text(after)

    def rename(self, old: str, new: str, *packages: str) -> None:
        """Rename something wherever its name occurs."""
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
        """Run a command, and return all that it printed."""
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
        """Run the user's script, and return all that it printed."""
        return self.run(sys.executable, "script.py", way, setting=setting)

    def assert_whole(self, *ways: str) -> None:
        """Check that with the setting off all is as if this package were not there."""
        for way in ways:
            printed = self.build(way)
            assert CLASSIC in printed
            assert "Traceback" not in printed
            assert "prefect-docker-attest" not in printed

    def assert_switched(self, *ways: str, setting: str | None = "true") -> None:
        """Check that with the setting on images are built as they should."""
        for way in ways:
            printed = self.build(way, setting)
            assert BUILDX in printed
            assert "Successfully built" in printed

    def assert_refused(self, *ways: str) -> None:
        """Check that with the setting on nothing is built, and the user is told why."""
        for way in ways:
            printed = self.build(way, "true")
            assert REFUSED in printed.splitlines()[-1]
            assert BUILDX not in printed
            assert CLASSIC not in printed


@pytest.fixture
def tomorrow(containerd_engine: Engine, tmp_path: Path) -> Tomorrow:
    return Tomorrow(tmp_path, containerd_engine.environment)


ROOT, BASE = "prefect/settings/models/root.py", "prefect/settings/base.py"


def _with_a_group(field: str, kind: str = "FutureDockerSettings") -> Callable[[str], str]:
    """A change that gives the root settings a group `docker` of Prefect's own, with this field."""
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


def test_a_group_docker_of_prefects_own_gets_the_setting(tomorrow: Tomorrow) -> None:
    tomorrow.change(ROOT, _with_a_group('default_registry: str = Field(default="")'))
    tomorrow.assert_whole("build_image")
    tomorrow.assert_switched("build_image")

    tomorrow.run(PREFECT, "config", "set", f"{SETTING}=true", "PREFECT_DOCKER_DEFAULT_REGISTRY=mine")
    tomorrow.assert_switched("build_image", setting=None)
    shown = tomorrow.run(PREFECT, "config", "view")
    assert f"{SETTING}='" in shown
    assert "PREFECT_DOCKER_DEFAULT_REGISTRY='mine'" in shown


def test_a_setting_of_prefects_own_is_left_alone_and_obeyed(tomorrow: Tomorrow) -> None:
    tomorrow.change(ROOT, _with_a_group("disable_attestations: bool = Field(default=False)"))
    tomorrow.assert_whole("build_image")
    tomorrow.assert_switched("build_image")


def test_a_field_docker_that_is_no_group_is_left_alone_and_the_setting_read_beside_it(tomorrow: Tomorrow) -> None:
    tomorrow.change(ROOT, _with_a_group("unused: str = Field(default='')", kind="str"))
    tomorrow.assert_whole("build_image")
    tomorrow.assert_switched("build_image")


def test_root_settings_of_another_kind_are_left_alone_and_the_setting_read_beside_them(tomorrow: Tomorrow) -> None:
    # Of another base class than the groups'.
    groups = "from prefect.settings.base import PrefectBaseSettings\n\n\nclass RootBase("
    base = (tomorrow.project.parent / BASE).read_text().replace("class PrefectBaseSettings(", groups)
    (tomorrow.project.parent / "prefect/settings/root_base.py").write_text(base)
    class_ = "from prefect.settings.root_base import RootBase\n\n\nclass Settings("
    tomorrow.change(ROOT, lambda text: text.replace("class Settings(PrefectBaseSettings", f"{class_}RootBase"))
    tomorrow.assert_whole("build_image")
    tomorrow.assert_switched("build_image")


def test_root_settings_in_another_place_are_left_alone_and_the_setting_read_beside_them(tomorrow: Tomorrow) -> None:
    settings = tomorrow.project.parent / "prefect/settings"
    (settings / "root.py").write_text((settings / "models/root.py").read_text().replace("from .", "from .models."))
    (settings / "models/root.py").unlink()
    tomorrow.rename(r"prefect\.settings\.models\.root", "prefect.settings.root", "prefect")
    tomorrow.assert_whole("build_image")
    tomorrow.assert_switched("build_image")


def test_a_base_of_settings_that_is_gone_leaves_the_variable(tomorrow: Tomorrow) -> None:
    tomorrow.rename("build_settings_config", "settings_config", "prefect")
    tomorrow.assert_switched(*WAYS)
    # Who relies on a profile cannot be served, and is told so; nothing else differs.
    printed = tomorrow.build("build_image")
    assert CLASSIC in printed
    assert f"reads {SETTING} from the environment alone" in printed
    assert "Traceback" not in printed


def test_without_docker_client_a_build_with_the_setting_on_is_refused(tomorrow: Tomorrow) -> None:
    tomorrow.rename("docker_client", "engine_client", "prefect", "prefect_docker")
    tomorrow.assert_whole(*WAYS)
    tomorrow.assert_refused(*WAYS)


def test_without_the_one_attempt_of_its_build_backend_a_build_with_the_setting_on_is_refused(
    tomorrow: Tomorrow,
) -> None:
    places = ("prefect/_internal/buildx.py", "prefect/docker/_buildx.py")
    if not any((tomorrow.project.parent / place).exists() for place in places):
        pytest.skip("this Prefect has no build_backend")
    pytest.importorskip("python_on_whales", reason='build_backend="buildx" needs it')
    tomorrow.rename("_buildx_build_once", "_buildx_build_again", "prefect")
    tomorrow.assert_refused("backend")
    # Its own settings are the user's.
    assert REFUSED not in tomorrow.build("backend")
    tomorrow.assert_switched(*WAYS)
