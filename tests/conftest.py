"""Engines, and Prefect with its setting on or off, for all tests."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import hypothesis
import pytest
from packaging.specifiers import SpecifierSet

from engines import container_registry, contents, existing, private, progress
from engines.existing import ExistingDocker, Found
from engines.machine import EngineUnavailable
from support.remote_builder import builder_machine, far, far_in_use, fleet_in_use, own_configuration  # noqa: F401 fixtures

# Prefect loads docker-py lazily. If Prefect came first, `from docker.errors import ...` would load that module twice.
importlib.import_module("docker")

if TYPE_CHECKING:
    from engines.private import Engine, PrivateDocker, Registry, Store

# Each run tests the same examples: a failure comes with the change that causes it, and comes again.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

# Tests set these variables themselves. (The oldest pytest-env in the matrix cannot unset a variable.)
for name in ("PREFECT_DOCKER_DISABLE_ATTESTATIONS", "PREFECT_DOCKER_ATTEST_AUTOLOAD"):
    os.environ.pop(name, None)

# A shell that starts pytest in the background disables Ctrl-C for it and its children. Some tests need Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

Setting = Callable[[bool], AbstractContextManager[Any]]
"""Turns the setting on or off inside a ``with``."""

FOUND = pytest.StashKey[Found]()
"""The existing engine; not set if tests run on private engines."""

DockerInUse: TypeAlias = "PrivateDocker | ExistingDocker"
"""The engines of a session."""

PLATFORMS = {"linux/amd64", "linux/arm64"}

ENGINES = pytest.StashKey[str]()
"""The engines and their versions. The versions of private engines are known after their start."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=["existing", "private"],
        help="existing: the engine that the docker CLI talks to; private: engines from Debian's packages, as root "
        "(default: existing where there is one and --suite is not given)",
    )
    parser.addoption("--suite", help="the suite of Debian that private engines come from: trixie (default) or sid")
    parser.addoption(
        "--oracle", type=int, default=0, help="compare `inspect` with engines on this number of new random images"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "private(reason): needs private engines: an existing one is somebody's")
    # A row of the matrix (tox.ini) must fail if it has other versions than its name.
    found = {"PYTHON": platform.python_version(), "PREFECT": version("prefect"), "DOCKER": version("docker")}
    for name, number in found.items():
        expected = os.environ.get(f"EXPECTED_{name}", "")
        if not SpecifierSet(expected).contains(number, prereleases=True):
            raise pytest.UsageError(f"EXPECTED_{name} is {expected}, but {number} is here")
    # Long operations show their progress directly, without pytest's capturing.
    capture: Any = config.pluginmanager.getplugin("capturemanager")

    def show(text: str) -> None:
        with capture.global_and_fixture_disabled():
            progress.to_stderr(text)

    progress.show = show
    _choose_engine(config)
    coverage: Any = config.pluginmanager.getplugin("_cov")
    if coverage and (FOUND in config.stash or private.why_not()):
        # Tests that need private engines are skipped, so the coverage is less than `fail_under`.
        coverage.options.cov_fail_under = None


def _choose_engine(config: pytest.Config) -> None:
    if FOUND in config.stash:
        return
    choice = config.getoption("--engine") or ("private" if config.getoption("--suite") else "")
    if choice == "private":
        return
    try:
        found = config.stash[FOUND] = existing.find()
    except EngineUnavailable as error:
        if choice:
            raise pytest.UsageError(f"--engine=existing: {error}") from error
        return
    # `support.names` reads this variable when it is imported, so it must not be imported before.
    assert "support.names" not in sys.modules
    os.environ["TESTS_BASE_IMAGE"] = found.base_image
    config.stash[ENGINES] = (
        f"the engine at {found.host}: Docker {found.docker_version}, {found.store} image store, "
        f"buildx {found.buildx_version}"
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    names = ("prefect", "prefect-docker", "docker", "pydantic-settings")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return [versions, f"engines of tests: {config.stash.get(ENGINES, 'private ones')}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with the fixture `engine` on each available image store, unless a test names the stores itself."""
    names = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    named = any("engine" in (each.split(",") if isinstance(each, str) else each) for each in names)
    if "engine" in metafunc.fixturenames and not named:
        found = metafunc.config.stash.get(FOUND, None)
        metafunc.parametrize("engine", [found.store] if found else private.STORES, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Tests without an engine come first, because the engines take seconds to start.
    order = ["unit", "startup", "engine", "cli", "end_to_end"]
    if hasattr(config, "workerinput"):
        # What cannot be divided comes first, and short files come last, so that the workers end at the same time.
        order = ["end_to_end", "startup", "engine", "cli", "unit"]
    items.sort(key=lambda item: order.index(item.path.relative_to(Path(__file__).parent).parts[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run tests in two processes, each with its own engines, or in one process on an existing engine."""
    _choose_engine(config)
    return 0 if FOUND in config.stash else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process whole files, and whole folders whose fixtures take long."""
    scheduling: Any = importlib.import_module("xdist.scheduler").LoadScopeScheduling

    class Scheduling(scheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            _, folder, file = nodeid.partition("::")[0].split("/")
            return folder if folder in ("end_to_end", "startup") else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the versions of the engines of a process."""
    if engines := getattr(node, "workeroutput", {}).get("engines"):
        node.config.stash[ENGINES] = engines


def pytest_runtest_setup(item: pytest.Item) -> None:
    mark = item.get_closest_marker("private")
    if mark and FOUND in item.config.stash:
        pytest.skip(f"{mark.args[0]} (--engine=private)")


def missing(reason: str) -> NoReturn:
    """Skip a test because the machine lacks something. In CI, where nothing may be missing, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def debian_only() -> None:
    """Skip a test on systems other than Debian, because it unpacks Debian's packages. It is also skipped in CI."""
    release = Path("/etc/os-release")
    if not (release.exists() and re.search(r"^ID=\"?debian\b", release.read_text(), re.MULTILINE)):
        pytest.skip("unpacks packages of Debian")


@pytest.fixture(scope="session")
def private_docker(request: pytest.FixtureRequest) -> Iterator[PrivateDocker]:
    """Two engines, one with each image store, and a registry, for the whole session."""
    if FOUND in request.config.stash:
        pytest.skip("needs an engine of each image store, and a registry that is their Docker Hub (--engine=private)")
    reason = private.why_not()
    if reason:
        missing(reason)
    with private.start(request.config.getoption("--suite") or "trixie") as docker:
        engines = f"Docker {docker.docker_version}, buildx {docker.buildx_version} ({docker.suite})"
        request.config.stash[ENGINES] = engines
        if hasattr(request.config, "workeroutput"):
            request.config.workeroutput["engines"] = engines
        yield docker
        _check_names(docker)


def _check_names(docker: PrivateDocker) -> None:
    """Fail if tests used names that would not be removed from an existing engine."""
    own, of_private = existing.own_names(docker.registry.address), ("busybox:", "prefecthq/prefect:", "mine/")
    names = {name for engine in docker.engines.values() for _, name in contents.of(engine).images}
    strange = [name for name in names - {contents.NO_NAME} if not own.match(name) and not name.startswith(of_private)]
    assert not strange, f"names of images in tests begin with {existing.PREFIX}/ or the address of their registry"


@pytest.fixture(scope="session")
def existing_docker(request: pytest.FixtureRequest) -> ExistingDocker:
    """The engine that the docker CLI talks to."""
    # The cleanup runs after all tests, because the time for the end of a test is limited.
    stack = contextlib.ExitStack()
    request.config.add_cleanup(stack.close)
    try:
        return stack.enter_context(existing.start(request.config.stash[FOUND]))
    except EngineUnavailable as error:
        missing(str(error))


@pytest.fixture(scope="session")
def docker_in_use(request: pytest.FixtureRequest) -> DockerInUse:
    """The engines of this session: one with each image store, or the existing one."""
    docker: DockerInUse = request.getfixturevalue(
        "existing_docker" if FOUND in request.config.stash else "private_docker"
    )
    return docker


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # The name of a row in the matrix has only the suite, not the versions.
    if ENGINES in config.stash:
        terminalreporter.write_line(config.stash[ENGINES])


@pytest.fixture(scope="session")
def registry(docker_in_use: DockerInUse) -> Registry:
    """A registry. Private engines also use it as a mirror of Docker Hub."""
    if docker_in_use.registry is None:
        missing(docker_in_use.no_registry)
    return docker_in_use.registry


@pytest.fixture(scope="session")
def registry_program(
    request: pytest.FixtureRequest, docker_in_use: DockerInUse, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The path of a registry program, for tests that start their own registries."""
    if isinstance(docker_in_use, ExistingDocker):
        request.getfixturevalue("engine_is_here")
        request.getfixturevalue("registry")
        return container_registry.program(
            docker_in_use.engine, existing.PREFIX, existing.PREFIX, tmp_path_factory.mktemp("registry")
        )
    (engine, *_) = docker_in_use.engines.values()
    program = shutil.which("docker-registry", path=engine.environment["PATH"])
    assert program
    return program


@pytest.fixture(scope="session")
def amd64(docker_in_use: DockerInUse) -> None:
    """The engine's own platform is linux/amd64."""
    if isinstance(docker_in_use, ExistingDocker) and docker_in_use.found.architecture != "amd64":
        pytest.skip(f"expects an engine on amd64; this one is on {docker_in_use.found.architecture}")


@pytest.fixture(scope="session")
def both_platforms(docker_in_use: DockerInUse) -> None:
    """The base image exists for linux/amd64 and for linux/arm64."""
    if isinstance(docker_in_use, ExistingDocker) and (lacking := PLATFORMS - docker_in_use.base_platforms):
        missing(f"no base image can be had for {', '.join(lacking)}")


@pytest.fixture(scope="session")
def emulation(docker_in_use: DockerInUse, both_platforms: None) -> None:  # noqa: ARG001
    """The engine runs programs for linux/amd64 and for linux/arm64."""
    if isinstance(docker_in_use, ExistingDocker):
        lacking = PLATFORMS - {*existing.platforms(docker_in_use.engine)}
        if lacking:
            missing(f"the engine runs no programs for {', '.join(lacking)}: install qemu-user-static (Debian, Ubuntu)")


@pytest.fixture(scope="session")
def engine_is_here(docker_in_use: DockerInUse) -> None:
    """The engine runs on this machine and not in a virtual one, so that tests see its processes and its network."""
    if isinstance(docker_in_use, ExistingDocker) and not existing.reaches_this_machine(docker_in_use.engine):
        pytest.skip("expects an engine on this machine's own network and kernel")


def _used(docker: DockerInUse, store: Store, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = docker.engines.get(store)
    if not engine:
        pytest.skip(f"the engine here has another image store than {store}")
    for name in [name for name in os.environ if name.startswith(("DOCKER_", "BUILDX_", "BUILDKIT_"))]:
        monkeypatch.delenv(name)
    for name, value in engine.environment.items():
        if name.startswith("DOCKER_") or name == "PATH":
            monkeypatch.setenv(name, value)
    if engine.store == "graphdriver" and docker.registry:
        from support.names import BUSYBOX

        # This store has one platform for a tag, and an earlier test may have pulled another platform.
        engine.run("docker", "image", "rm", "--force", BUSYBOX, check=False)
    return engine


@pytest.fixture
def engine(
    request: pytest.FixtureRequest,
    docker_in_use: DockerInUse,
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    """The engine that this process uses. The test runs once with each image store."""
    return _used(docker_in_use, request.param, monkeypatch)


@pytest.fixture
def containerd_engine(docker_in_use: DockerInUse, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return _used(docker_in_use, "containerd", monkeypatch)


@pytest.fixture
def graphdriver_engine(docker_in_use: DockerInUse, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return _used(docker_in_use, "graphdriver", monkeypatch)


@pytest.fixture
def some_engine(docker_in_use: DockerInUse, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine, preferably with the containerd image store."""
    store: Store = "containerd" if "containerd" in docker_in_use.engines else "graphdriver"
    return _used(docker_in_use, store, monkeypatch)


@pytest.fixture
def setting() -> Setting:
    """A function that turns the setting on or off inside a ``with``."""
    from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings

    return lambda value: temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: value})


@pytest.fixture
def switched_on(setting: Setting) -> Iterator[None]:
    """The setting on, for the whole test."""
    with setting(True):
        yield
