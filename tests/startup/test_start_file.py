"""The start-up files: where they are installed, when they run, and what they change in an interpreter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import SETTING, builder_of, moved_away, write

if TYPE_CHECKING:
    from support.environment import Environment


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    # coverage.py would import modules and trace code in the interpreters that these tests examine.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def sentinels() -> int:
    import sys

    return sum(getattr(finder, "__name__", "") == "PrefectDockerAttestSentinel" for finder in sys.meta_path)


def code(file: Path) -> list[str]:
    """Return the lines of a start-up file without comments."""
    return [line for line in file.read_text(encoding="ascii").splitlines() if not line.startswith("#")]


def test_both_files_are_in_site_packages_and_call_the_same_function(installed: Environment) -> None:
    (line,) = code(installed.pth)
    (entry_point,) = code(installed.pth.with_suffix(".start"))
    assert line == "import prefect_docker_attest_start; prefect_docker_attest_start.add_import_hook()"
    assert entry_point == "prefect_docker_attest_start:add_import_hook"


def test_the_module_that_they_name_is_in_the_same_folder(installed: Environment) -> None:
    def place() -> str:
        import prefect_docker_attest_start

        return prefect_docker_attest_start.__file__

    assert Path(installed.call(place)).parent == installed.site_packages


def test_pip_removes_the_files_before_the_module_that_they_name(from_wheel: Environment) -> None:
    # pip removes files in the order of their paths. A Python that starts meanwhile must find the module.
    files = sorted(path for path in from_wheel.site_packages.glob("*prefect_docker_attest*") if path.is_file())
    assert [path.name for path in files] == [
        "prefect_docker_attest.pth",
        "prefect_docker_attest.start",
        "prefect_docker_attest_start.py",
    ]


@pytest.mark.parametrize(("flags", "expected"), [((), 1), (("-I",), 1), (("-S",), 0)], ids=["plain", "-I", "-S"])
def test_it_runs_wherever_site_packages_is_read(installed: Environment, flags: tuple[str, ...], expected: int) -> None:
    assert installed.call(sentinels, flags=flags) == expected


@pytest.mark.skipif(sys.version_info < (3, 15), reason="this Python reads no .start files")
def test_the_start_file_works_without_the_pth_file_and_replaces_its_import_line(installed: Environment) -> None:
    line = installed.pth.read_text(encoding="ascii")
    try:
        installed.pth.write_text("import sys; sys.exit('the import line ran')\n", encoding="ascii")
        assert installed.call(sentinels) == 1
        installed.pth.unlink()
        assert installed.call(sentinels) == 1
    finally:
        installed.pth.write_text(line, encoding="ascii")


def test_reading_both_files_adds_one_finder(installed: Environment) -> None:
    def call_again() -> int:
        import pkgutil

        entry_point: Any = pkgutil.resolve_name("prefect_docker_attest_start:add_import_hook")
        entry_point()
        return sentinels()

    assert installed.call(call_again, using=[sentinels]) == 1


def test_running_it_twice_adds_one_finder(installed: Environment) -> None:
    def read_again(site_packages: str) -> int:
        import site

        site.addsitedir(site_packages)
        return sentinels()

    assert installed.call(read_again, str(installed.site_packages), using=[sentinels]) == 1


def test_reading_the_files_again_after_prefect_adds_nothing(installed: Environment) -> None:
    def read_again(site_packages: str) -> int:
        import site

        import prefect  # noqa: F401

        site.addsitedir(site_packages)
        return sentinels()

    write(installed.project, {"prefect.py": ""})
    assert installed.call(read_again, str(installed.site_packages), using=[sentinels]) == 0


@pytest.mark.parametrize("names", [("fullname", "path", "target"), ("fullname", "path"), ("fullname",)])
def test_the_sentinel_accepts_keyword_arguments(installed: Environment, names: tuple[str, ...]) -> None:
    def found(names: tuple[str, ...]) -> object:
        import sys

        sentinel: Any = sys.meta_path[0]
        assert sentinel.__name__ == "PrefectDockerAttestSentinel"
        return sentinel.find_spec(**{"fullname": "json", "path": None, "target": None} | dict.fromkeys(names))

    assert installed.call(found, names) is None


def test_if_another_finder_finds_prefect_the_next_look_up_loads_the_package(from_wheel: Environment) -> None:
    def found() -> list[object]:
        import sys
        from importlib.machinery import PathFinder

        class First:
            """A finder like that of typeguard, which finds the packages to check."""

            @staticmethod
            def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
                return PathFinder.find_spec(name, path, target) if name == "prefect" else None

        sys.meta_path.insert(0, First)
        from prefect.utilities.dockerutils import docker_client

        return [sentinels(), builder_of(docker_client)]

    assert from_wheel.call(found, using=[sentinels, builder_of], variables={SETTING: "true"}) == [0, "buildx"]


def test_only_the_module_that_they_name_is_imported_at_the_start_of_the_interpreter(installed: Environment) -> None:
    def modules() -> list[str]:
        import sys

        return sorted(sys.modules)

    with_them = installed.call(modules)
    with moved_away(installed.pth), moved_away(installed.pth.with_suffix(".start")):
        without = installed.call(modules)
    added = [name for name in with_them if name not in without]
    if sys.version_info >= (3, 15):
        # Python imports pkgutil and other modules to read a start file.
        added = [name for name in added if name.partition(".")[0] not in sys.stdlib_module_names]
    assert added == ["prefect_docker_attest_start"]


def test_the_package_is_imported_with_prefect_and_not_before(installed: Environment) -> None:
    def imported() -> list[bool]:
        import sys
        import unittest.mock  # noqa: F401 a hundred modules

        before = "prefect_docker_attest" in sys.modules
        import prefect  # noqa: F401

        return [before, "prefect_docker_attest" in sys.modules]

    write(installed.project, {"prefect.py": ""})
    assert installed.call(imported) == [False, True]


def test_after_prefect_the_sentinel_is_replaced_and_all_other_finders_remain(from_wheel: Environment) -> None:
    def finders() -> list[object]:
        import sys

        before = sys.meta_path[1:]
        import prefect.docker  # noqa: F401

        return [sentinels(), [repr(finder) for finder in before if finder not in sys.meta_path]]

    assert from_wheel.call(finders, using=[sentinels]) == [0, []]


def test_other_finders_keep_their_places_while_the_sentinel_is_replaced(from_wheel: Environment) -> None:
    # importlib iterates over this list by index. If a finder moves, another thread asks it twice or never.
    def states() -> list[list[str]]:
        import sys

        seen: list[list[str]] = []

        def trace(*_: object) -> Any:
            others = [repr(finder) for finder in sys.meta_path[1:]]
            if others not in seen:
                seen.append(others)
            return trace

        sys.settrace(trace)
        import prefect  # noqa: F401

        sys.settrace(None)
        return seen

    write(from_wheel.project, {"prefect.py": ""})
    assert len(from_wheel.call(states)) == 1


def test_threads_that_import_while_the_sentinel_is_replaced_ask_every_finder_once(from_wheel: Environment) -> None:
    def asked_amiss() -> list[str]:
        import sys
        import threading
        from collections import Counter
        from importlib.util import find_spec

        class Recorder:
            def __init__(self) -> None:
                self.asked: Counter[str] = Counter()

            def find_spec(self, name: str, *_: object) -> None:
                self.asked[name] += 1

        recorders = [Recorder() for _ in range(4)]
        sys.meta_path[1:1] = recorders
        sentinel = sys.meta_path[0]
        names: list[str] = []
        done = threading.Event()

        def look_up(thread: int) -> None:
            while not done.is_set():
                name = f"module_{thread}_{len(names)}"
                names.append(name)
                find_spec(name)

        threads = [threading.Thread(target=look_up, args=(number,)) for number in range(8)]
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        for _ in range(100):
            sys.meta_path[0] = sentinel
            for name in [name for name in sys.modules if name.startswith("prefect")]:
                del sys.modules[name]
            import prefect  # noqa: F401
        done.set()
        for thread in threads:
            thread.join()
        return [name for name in names for recorder in recorders if recorder.asked[name] != 1]

    write(from_wheel.project, {"prefect.py": ""})
    assert from_wheel.call(asked_amiss) == []
