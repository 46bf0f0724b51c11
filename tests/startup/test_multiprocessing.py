"""Child processes of multiprocessing with each start method: they have the setting and patched builds."""

from __future__ import annotations

import inspect
import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import SETTING, builder_of, write

if TYPE_CHECKING:
    from support.environment import Environment


def in_child() -> list[object]:
    """Return the setting, and who builds. Call it in an `Environment`."""
    from prefect.settings import get_current_settings
    from prefect.utilities.dockerutils import docker_client

    settings: Any = get_current_settings()
    return [settings.docker.disable_attestations, builder_of(docker_client)]


@pytest.mark.parametrize("prefect", ["imported-before", "imported-by-the-child"])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_child_processes_have_the_setting_and_patched_builds(
    from_wheel: Environment, method: str, prefect: str
) -> None:
    def found(method: str, prefect: str) -> list[object]:
        import importlib
        import multiprocessing

        if prefect == "imported-before":
            importlib.import_module("prefect.docker")
        work: Any = importlib.import_module("work")
        context = multiprocessing.get_context(method)
        if method == "forkserver" and prefect == "imported-before":
            context.set_forkserver_preload(["prefect.docker"])
        with context.Pool(1) as pool:
            return list(pool.apply(work.in_child))

    work = ["from __future__ import annotations", inspect.getsource(builder_of), inspect.getsource(in_child)]
    profile = f'active = "p"\n[profiles.p]\n{SETTING} = "true"\n'
    write(from_wheel.project, {"work.py": "\n".join(work), "profiles.toml": profile})
    assert from_wheel.call(found, method, prefect) == [True, "buildx"]
