"""The `.pth` file: where it lands, when it runs, what it leaves in an interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from startup.environment import SETTING, builder_of, write

if TYPE_CHECKING:
    from startup.environment import Environment


def sentinels() -> int:
    import sys

    return sum(getattr(finder, "__name__", "") == "PrefectDockerAttestSentinel" for finder in sys.meta_path)


def test_it_lands_in_site_packages_with_one_import_line(installed: Environment) -> None:
    lines = installed.pth.read_text(encoding="ascii").splitlines()
    assert [line.partition(" ")[0] for line in lines if not line.startswith("#")] == ["import"]


@pytest.mark.parametrize(("flags", "expected"), [((), 1), (("-I",), 1), (("-S",), 0)], ids=["plain", "-I", "-S"])
def test_it_runs_wherever_site_packages_is_read(installed: Environment, flags: tuple[str, ...], expected: int) -> None:
    assert installed.call(sentinels, flags=flags) == expected


def test_run_twice_it_adds_one_finder(installed: Environment) -> None:
    def read_again(site_packages: str) -> int:
        import site

        site.addsitedir(site_packages)
        return sentinels()

    assert installed.call(read_again, str(installed.site_packages), using=[sentinels]) == 1


def test_two_sentinels_with_a_stranger_between_them_both_go(from_wheel: Environment) -> None:
    def found(site_packages: str) -> list[object]:
        import site
        import sys

        class Stranger:
            find_spec = staticmethod(lambda *_: None)

        sys.meta_path.insert(0, Stranger)
        site.addsitedir(site_packages)
        before = sentinels()
        from prefect.utilities.dockerutils import docker_client

        return [before, sentinels(), Stranger in sys.meta_path, builder_of(docker_client)]

    found_here = from_wheel.call(
        found, str(from_wheel.site_packages), using=[sentinels, builder_of], variables={SETTING: "true"}
    )
    assert found_here == [2, 0, True, "buildx"]


def test_no_module_is_imported_at_the_start_of_the_interpreter(installed: Environment) -> None:
    def modules() -> list[str]:
        import sys

        return sorted(sys.modules)

    with_it = installed.call(modules)
    away = installed.pth.rename(installed.pth.with_suffix(".away"))
    try:
        assert with_it == installed.call(modules)
    finally:
        away.rename(installed.pth)


def test_the_package_is_imported_with_prefect_and_not_before(installed: Environment) -> None:
    def imported() -> list[bool]:
        import sys
        import unittest.mock  # noqa: F401 a hundred modules

        before = "prefect_docker_attest" in sys.modules
        import prefect  # noqa: F401

        return [before, "prefect_docker_attest" in sys.modules]

    write(installed.project, {"prefect.py": ""})
    assert installed.call(imported) == [False, True]


def test_after_prefect_the_sentinel_is_gone_and_every_other_finder_is_there(from_wheel: Environment) -> None:
    def finders() -> list[object]:
        import sys

        before = sys.meta_path[1:]
        import prefect.docker  # noqa: F401

        return [sentinels(), [repr(finder) for finder in before if finder not in sys.meta_path]]

    assert from_wheel.call(finders, using=[sentinels]) == [0, []]


def test_the_other_finders_never_leave_their_places_while_the_sentinel_goes(from_wheel: Environment) -> None:
    # importlib goes through this list by index: in another thread, a finder that moves is asked twice or never.
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


def test_threads_that_import_while_the_sentinel_goes_ask_every_finder_once(from_wheel: Environment) -> None:
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
