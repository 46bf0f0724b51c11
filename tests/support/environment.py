"""Virtual environments that hold this package as its users get it, and programs that run in them."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")

PTH = "prefect_docker_attest.pth"
PACKAGE = "prefect_docker_attest"
SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
AUTOLOAD = "PREFECT_DOCKER_ATTEST_AUTOLOAD"

ROOT_SETTINGS = "prefect.settings.models.root"
DOCKERUTILS = "prefect.utilities.dockerutils"

# A Prefect as far as this package looks at it, which is imported in no time.
FAKE_PREFECT = {
    "prefect/__init__.py": "",
    "prefect/settings/__init__.py": "def get_current_settings(): pass",
    "prefect/settings/base.py": """
from pydantic_settings import BaseSettings as PrefectBaseSettings

def build_settings_config(path):
    return {"env_prefix": "PREFECT_DOCKER_"}
""",
    "prefect/settings/models/__init__.py": "",
    "prefect/settings/models/root.py": """
from prefect.settings.base import PrefectBaseSettings

class Settings(PrefectBaseSettings):
    pass
""",
    "prefect/utilities/__init__.py": "",
    "prefect/utilities/dockerutils.py": "def docker_client(): pass",
}


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder of a user's project to run programs in."""

    folder: Path
    source: Path
    """Where the package is imported from: site-packages, or the source tree of an editable install."""
    project: Path
    """The current directory of programs. Prefect's home and profiles are in it, so nobody else's are touched."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python3*/site-packages"))

    @property
    def pth(self) -> Path:
        return self.site_packages / PTH

    @property
    def package(self) -> Path:
        return self.source / PACKAGE

    @property
    def profiles(self) -> Path:
        return self.project / "profiles.toml"

    def run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python, with none of the caller's variables for Python or Prefect."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PREFECT_"))}
        private = {
            "HOME": str(self.project),
            "PREFECT_HOME": str(self.project / ".prefect"),
            "PREFECT_PROFILES_PATH": str(self.profiles),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "COLUMNS": "200",
        }
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.project,
            env={**inherited, **private, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def output(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Run this environment's Python, which must succeed and warn of nothing."""
        done = self.run(*arguments, variables=variables)
        assert (done.returncode, done.stderr) == (0, ""), f"exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Prefect's command line."""
        return self.run(str(self.folder / "bin" / "prefect"), *arguments)

    def prefect(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Run Prefect's command line, which must succeed and warn of nothing."""
        return self.output(str(self.folder / "bin" / "prefect"), *arguments, variables=variables)

    def call(
        self,
        function: Callable[..., T],
        *arguments: object,
        using: Iterable[Callable[..., Any]] = (),
        flags: Iterable[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> T:
        """Call a function in an interpreter of its own, which must warn of nothing.

        The function travels as source: it imports what it uses and calls the functions of `using` at most.
        Arguments are literals; the result is what JSON makes of it.
        """
        program = [
            "from __future__ import annotations",
            *(textwrap.dedent(inspect.getsource(each)) for each in (*using, function)),
            f"result = {function.__name__}({', '.join(map(repr, arguments))})",
            "import json",
            "print(json.dumps(result))",
        ]
        return cast("T", json.loads(self.output(*flags, "-c", "\n".join(program), variables=variables)))


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files by their paths, and the folders that they need."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def builder_of(docker_client: Any) -> str:
    """Who builds for the clients that Prefect's function opens. To be called in an `Environment`; needs no engine."""
    from unittest import mock

    def docker_py(**_: object) -> Iterator[str]:
        yield "docker-py"

    def buildx(*_: object, **__: object) -> Iterator[str]:
        yield "buildx"

    client = mock.Mock(spec_set=["api", "close"])
    client.api.build = docker_py
    with (
        mock.patch("docker.DockerClient.from_env", return_value=client),
        mock.patch("prefect_docker_attest.docker_py.build", buildx),
        docker_client() as opened,
    ):
        (builder,) = opened.api.build(path=".")
        return str(builder)
