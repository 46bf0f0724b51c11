"""Virtual environments with the wheel and the editable install of this package. Each is made once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import missing
from support.environment import PACKAGE, Distributions, Environment, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]

# Errors of uv and pip without a package index, and of venv without ensurepip.
_MISSING = ("Failed to fetch", "Request failed", "from versions: none", "ensurepip is not available")

# The script that an installer writes. Prefect reads --profile only if sys.argv[0] ends in "/prefect".
_PREFECT_COMMAND = """\
from importlib.metadata import entry_points

(command,) = entry_points(group="console_scripts", name="prefect")
raise SystemExit(command.load()())
"""

# The line of coverage.py's own .pth file. coverage.py sets this variable if it measures these tests.
_MEASURE_COVERAGE = "import os; 'COVERAGE_PROCESS_CONFIG' in os.environ and __import__('coverage').process_startup()"


def _run(*command: str | Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    reasons = [line.strip() for line in done.stdout.splitlines() if any(words in line for words in _MISSING)]
    if done.returncode and reasons:
        missing(reasons[0])
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    # Build with current tools, even in a row of the matrix with old packages: an old hatchling does not know new
    # classifiers.
    today = {name: value for name, value in os.environ.items() if name != "UV_EXCLUDE_NEWER"}
    _run(sys.executable, "-m", "build", "--installer=uv", "--outdir", folder, ROOT, environment=today)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        # Newer versions of Python require a filter. The oldest do not have one.
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(folder)
    (wheel,) = folder.glob("*.whl")
    return Distributions(folder / archive.name.removesuffix(".tar.gz"), wheel)


@pytest.fixture(scope="session")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that is copied for the others, because installing pip takes long."""
    folder = tmp_path_factory.mktemp("environments") / "with-pip"
    _run(sys.executable, "-m", "venv", folder)
    return folder


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Prefect and its dependencies, without this package.

    It contains links to the packages of these tests, so that Prefect does not have to be installed again. Python reads
    `.pth` files only in site-packages, so only our own file can load this package.
    """
    folder = tmp_path_factory.mktemp("dependencies")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if PACKAGE not in entry.name and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


def _environment(with_pip: Path, name: str, *installed: str | Path, dependencies: Path | None = None) -> Environment:
    folder = with_pip.with_name(name)
    shutil.copytree(with_pip, folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    environment = Environment(folder, source=site_packages, project=folder)
    if dependencies:
        write(folder, {"bin/prefect": _PREFECT_COMMAND})
        write(site_packages, {"dependencies.pth": f"{dependencies}\n{_MEASURE_COVERAGE}\n"})
    if installed:
        _run(environment.python, "-m", "pip", "install", *(["--no-deps"] if dependencies else []), *installed)
    return environment


@pytest.fixture(scope="session")
def _from_wheel(with_pip: Path, distributions: Distributions, dependencies: Path) -> Environment:
    return _environment(with_pip, "wheel", distributions.wheel, dependencies=dependencies)


@pytest.fixture(scope="session")
def _editable(with_pip: Path, distributions: Distributions, dependencies: Path) -> Environment:
    environment = _environment(with_pip, "editable", "--editable", distributions.source, dependencies=dependencies)
    return replace(environment, source=distributions.source)


@pytest.fixture(scope="session")
def _without_us(with_pip: Path, dependencies: Path) -> Environment:
    return _environment(with_pip, "without-us", dependencies=dependencies)


@pytest.fixture(scope="session", autouse=True)
def _installation(
    request: pytest.FixtureRequest, with_pip: Path, distributions: Distributions
) -> Iterator[Future[Environment] | None]:
    # Installing a hundred packages takes half a minute, so it happens while other tests run.
    with ThreadPoolExecutor(max_workers=1) as background:
        wanted = any("fresh" in getattr(item, "fixturenames", ()) for item in request.session.items)
        # Compiling all modules would take most of the time. Python compiles those that it imports.
        wheel = ("--no-compile", distributions.wheel)
        yield background.submit(_environment, with_pip, "fresh", *wheel) if wanted else None


@pytest.fixture
def from_wheel(_from_wheel: Environment, tmp_path: Path) -> Environment:
    """An environment with the wheel, and a new project folder."""
    return replace(_from_wheel, project=tmp_path)


@pytest.fixture
def editable(_editable: Environment, tmp_path: Path) -> Environment:
    """An environment with an editable install of the source tree, and a new project folder."""
    return replace(_editable, project=tmp_path)


@pytest.fixture
def without_us(_without_us: Environment, tmp_path: Path) -> Environment:
    """An environment with Prefect and without this package, and a new project folder."""
    return replace(_without_us, project=tmp_path)


@pytest.fixture
def without_us_yet(with_pip: Path, dependencies: Path, tmp_path: Path) -> Environment:
    """Prefect with its command, without this package, for one test that installs it."""
    environment = _environment(with_pip, f"{tmp_path.name}-environment", dependencies=dependencies)
    for name, text in {
        "prefect": _PREFECT_COMMAND,
        # A copied pip would install into the original environment.
        "pip": "from pip._internal.cli.main import main\n\nraise SystemExit(main())\n",
    }.items():
        command = environment.folder / "bin" / name
        command.write_text(f"#!{environment.python}\n{text}")
        command.chmod(0o755)
    return replace(environment, project=tmp_path)


@pytest.fixture
def fresh(_installation: Future[Environment], tmp_path: Path) -> Environment:
    """A new environment in which pip has installed the wheel with its dependencies."""
    return replace(_installation.result(), project=tmp_path)


@pytest.fixture(params=["from_wheel", "editable"])
def installed(request: pytest.FixtureRequest) -> Environment:
    """The wheel, then the editable install."""
    environment: Environment = request.getfixturevalue(request.param)
    return environment
