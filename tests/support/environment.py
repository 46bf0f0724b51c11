"""Virtual environments with this package as users install it, and programs that run in them."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T")

PTH = "prefect_docker_attest.pth"
PACKAGE = "prefect_docker_attest"
SETTING = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
AUTOLOAD = "PREFECT_DOCKER_ATTEST_AUTOLOAD"

ROOT_SETTINGS = "prefect.settings.models.root"
DOCKERUTILS = "prefect.utilities.dockerutils"
DOCKER_PY = "docker.api.client"

# A fake Prefect with only the modules that this package uses. Its import takes almost no time.
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

# A fake docker-py with only the module that this package uses.
FAKE_DOCKER = {
    "docker/__init__.py": "import docker.api.client",
    "docker/api/__init__.py": "",
    "docker/api/client.py": "class APIClient:\n def build(self, **options): return ['docker-py']",
}


@dataclass(frozen=True)
class Distributions:
    """What is published: the source distribution, and the wheel that was built from it."""

    source: Path
    """The source distribution, unpacked."""
    wheel: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder of a user's project."""

    folder: Path
    source: Path
    """The folder that contains the package: site-packages, or the source tree of an editable install."""
    project: Path
    """The current directory of programs. It also contains Prefect's home and profiles, to isolate tests."""

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
        """Run this environment's Python, without the caller's variables for Python and Prefect."""
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
        """Run this environment's Python, and return its output. It must succeed without warnings."""
        done = self.run(*arguments, variables=variables)
        assert (done.returncode, done.stderr) == (0, ""), f"exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Prefect's command line."""
        return self.run(str(self.folder / "bin" / "prefect"), *arguments)

    def prefect(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Run Prefect's command line, and return its output. It must succeed without warnings."""
        return self.output(str(self.folder / "bin" / "prefect"), *arguments, variables=variables)

    def call(
        self,
        function: Callable[..., T],
        *arguments: object,
        using: Iterable[Callable[..., Any]] = (),
        flags: Iterable[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> T:
        """Call a function in a new interpreter, which must succeed without warnings.

        The function is passed as source code, so it must import all that it uses, and can call only the functions in
        `using`. Arguments must be literals. The result is converted to JSON and back.
        """
        program = [
            "from __future__ import annotations",
            *(textwrap.dedent(inspect.getsource(part)) for part in (*using, function)),
            f"result = {function.__name__}({', '.join(map(repr, arguments))})",
            "import json",
            "print(json.dumps(result))",
        ]
        return cast("T", json.loads(self.output(*flags, "-c", "\n".join(program), variables=variables)))

    def call_each(
        self,
        functions: Iterable[tuple[Callable[..., T], Sequence[object]]],
        *,
        using: Iterable[Callable[..., Any]] = (),
        variables: Mapping[str, str] | None = None,
    ) -> list[T]:
        """Call functions with their arguments, as `call` does, but import Prefect only once.

        Each function is called in its own fork of an interpreter that has imported Prefect.
        """
        calls = list(functions)
        parts: list[Callable[..., Any]] = [*using, *dict.fromkeys(function for function, _ in calls), in_forks]
        program = [
            "from __future__ import annotations",
            "import json",
            "import prefect.docker",
            *(textwrap.dedent(inspect.getsource(part)) for part in parts),
            f"calls = [{', '.join(f'({function.__name__}, {[*arguments]!r})' for function, arguments in calls)}]",
            "print(json.dumps(in_forks(calls)))",
        ]
        return cast("list[T]", json.loads(self.output("-c", "\n".join(program), variables=variables)))


def in_forks(calls: Iterable[tuple[Callable[..., T], Sequence[object]]]) -> list[T]:
    """Call each function in its own fork of this process, and return the results. Call it in an `Environment`."""
    import json
    import os
    import sys

    results = []
    for function, arguments in calls:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            result = function(*arguments)
            with open(writer, "w", encoding="utf-8") as pipe:
                json.dump(result, pipe)
            sys.exit()
        os.close(writer)
        with open(reader, encoding="utf-8") as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        assert status == 0, function
        results.append(json.loads(text))
    return results


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files by their paths, and create the folders that they need."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def moved_away(path: Path) -> Iterator[None]:
    """Rename a file or folder inside a ``with``."""
    away = path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        away.rename(path)


@contextlib.contextmanager
def holding(path: Path, text: str) -> Iterator[None]:
    """Replace the content of a file inside a ``with``."""
    with moved_away(path):
        path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            path.unlink()


def builder_of(docker_client: Any) -> str:
    """Return who builds for clients of Prefect's function: ``buildx`` or ``docker-py``. It needs no engine.

    Call it in an `Environment`.
    """
    import contextlib
    import sys
    from unittest import mock

    import docker  # noqa: F401 before its classes are mocked

    def buildx(*_: object, **__: object) -> Generator[str, None, bool]:
        yield "buildx"
        return True

    client = "docker.api.client.APIClient"
    with (
        mock.patch(f"{client}._retrieve_server_version", return_value="1.44"),
        mock.patch(f"{client}._post"),
        mock.patch(f"{client}._stream_helper", return_value=iter(["docker-py"])),
        # Mocking a module imports it.
        mock.patch("prefect_docker_attest.buildx.docker_py_build.build", buildx)
        if "prefect_docker_attest" in sys.modules
        else contextlib.nullcontext(),
        docker_client() as opened,
    ):
        (builder,) = opened.api.build(path=".")
        return str(builder)
