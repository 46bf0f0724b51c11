"""`pip install` with all dependencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.environment import SETTING, builder_of

if TYPE_CHECKING:
    from support.environment import Environment


def test_pip_installs_everything_and_removes_it_again(fresh: Environment) -> None:
    def found() -> list[object]:
        from prefect.settings import get_current_settings
        from prefect.utilities.dockerutils import docker_client

        settings: Any = get_current_settings()
        return [settings.docker.disable_attestations, builder_of(docker_client)]

    on = {SETTING: "true"}
    fresh.output("-m", "pip", "check")
    assert fresh.call(found, using=[builder_of], variables=on) == [True, "buildx"]
    assert (
        f"{SETTING}='true' (from env)" in fresh.prefect("config", "view", "--show-sources", variables=on).splitlines()
    )

    fresh.output("-m", "pip", "uninstall", "--yes", "prefect-docker-attest")
    assert list(fresh.site_packages.glob("*prefect_docker_attest*")) == []
    assert fresh.output("-c", "import prefect.context", variables=on) == ""
