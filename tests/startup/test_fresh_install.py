"""What a user gets from `pip install`, with everything that it brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from startup.environment import SETTING, builder_of

if TYPE_CHECKING:
    from startup.environment import Environment


def test_pip_brings_all_that_is_needed_and_takes_it_away_again(fresh: Environment) -> None:
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
