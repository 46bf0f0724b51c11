"""The wheel and the editable install of this package, each in a virtual environment that is made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import missing
from startup.environment import PACKAGE, Environment, write

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

# What uv and pip say where there is no package index, and venv where there is no ensurepip.
_MISSING = ("Failed to fetch", "Request failed", "from versions: none", "ensurepip is not available")

# As an installer writes it: Prefect looks for --profile where sys.argv[0] ends in "/prefect".
_PREFECT_COMMAND = """\
from importlib.metadata import entry_points

(command,) = entry_points(group="console_scripts", name="prefect")
raise SystemExit(command.load()())
"""


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    reasons = [line.strip() for line in done.stdout.splitlines() if any(words in line for words in _MISSING)]
    if done.returncode and reasons:
        missing(reasons[0])
    assert done.returncode == 0, done.stdout


@dataclass(frozen=True)
class Distributions:
    """What is published: the source distribution, and the wheel that was built from it."""

    source: Path
    """The source distribution, unpacked."""
    wheel: Path


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    _run(sys.executable, "-m", "build", "--installer=uv", "--outdir", folder, ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        # Newer Pythons ask for a filter, the oldest have none.
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(folder)
    (wheel,) = folder.glob("*.whl")
    return Distributions(folder / archive.name.removesuffix(".tar.gz"), wheel)


@pytest.fixture(scope="session")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that is copied for each of the others: its pip takes longest to make."""
    folder = tmp_path_factory.mktemp("environments") / "with-pip"
    _run(sys.executable, "-m", "venv", folder)
    return folder


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect and all that it needs, without this package.

    Links into the environment of these tests, so that their Prefect is the one under test, and none is installed
    three times. Python runs the `.pth` files of site-packages only, so there is no other way than ours to be woken.
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
        write(site_packages, {"dependencies.pth": f"{dependencies}\n"})
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
    # Finding and installing a hundred packages takes half a minute: other tests run meanwhile.
    with ThreadPoolExecutor(max_workers=1) as background:
        wanted = any("fresh" in getattr(item, "fixturenames", ()) for item in request.session.items)
        yield background.submit(_environment, with_pip, "fresh", distributions.wheel) if wanted else None


@pytest.fixture
def from_wheel(_from_wheel: Environment, tmp_path: Path) -> Environment:
    """The wheel, installed, and a project of this test's own."""
    return replace(_from_wheel, project=tmp_path)


@pytest.fixture
def editable(_editable: Environment, tmp_path: Path) -> Environment:
    """The source tree, installed with `pip install --editable`, and a project of this test's own."""
    return replace(_editable, project=tmp_path)


@pytest.fixture
def without_us(_without_us: Environment, tmp_path: Path) -> Environment:
    """Prefect without this package, and a project of this test's own."""
    return replace(_without_us, project=tmp_path)


@pytest.fixture
def fresh(_installation: Future[Environment], tmp_path: Path) -> Environment:
    """What `pip install` of the wheel makes of an empty environment."""
    return replace(_installation.result(), project=tmp_path)


@pytest.fixture(params=["from_wheel", "editable"])
def installed(request: pytest.FixtureRequest) -> Environment:
    """The wheel, then the editable install."""
    environment: Environment = request.getfixturevalue(request.param)
    return environment
