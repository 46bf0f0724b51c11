"""The setting in the container of a flow run, where this package is not installed."""

from __future__ import annotations

import json
import pickle
import sys
from typing import TYPE_CHECKING, Any

import cloudpickle  # type: ignore[import-untyped]
import pytest
from prefect.context import SettingsContext, get_settings_context

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Setting
    from engines.private import Engine

pytestmark = pytest.mark.timeout(900)

PROGRAM = """
import importlib.util, json, pathlib, pickle
from prefect.context import SettingsContext, get_settings_context
assert not importlib.util.find_spec("prefect_docker_attest")
came = pickle.loads(pathlib.Path("/exchange/there").read_bytes())
pathlib.Path("/exchange/back").write_bytes(pickle.dumps(came))
with came:
    context = get_settings_context()
    assert isinstance(context, SettingsContext)
    environment = context.settings.to_environment_variables(exclude_unset=True)
    print(json.dumps([hasattr(context.settings, "docker"), environment]))
"""


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_a_settings_context_goes_to_a_container_without_the_package_and_back(
    containerd_engine: Engine, base_image: str, tmp_path: Path, setting: Setting, dumps: Any
) -> None:
    version = containerd_engine.output_of(base_image, "python3", "--version")
    theirs = tuple(int(part) for part in version.split()[1].split(".")[:2])
    if theirs < (3, 13) <= sys.version_info:
        pytest.skip(f"{version.strip()} of the image's Debian reads no paths that Python 3.13 pickles")
    with setting(True):
        # A copy, because a context that is entered cannot be pickled.
        mine = get_settings_context()
        (tmp_path / "there").write_bytes(dumps(SettingsContext(profile=mine.profile, settings=mine.settings)))
    variables = ("--env=PREFECT_DOCKER_DISABLE_ATTESTATIONS=true", "--env=PREFECT_LOGGING_TO_API_ENABLED=false")
    program = ("python3", "-W", "error:::prefect", "-c", PROGRAM)
    output = containerd_engine.output_of(f"--volume={tmp_path}:/exchange", *variables, base_image, *program)
    has_group, environment = json.loads(output)
    assert has_group is False
    assert environment["PREFECT_LOGGING_TO_API_ENABLED"].lower() == "false"

    back = pickle.loads((tmp_path / "back").read_bytes())
    # Prefect in the container does not know the setting, so it has its default here.
    assert back.settings.docker.disable_attestations is False
    assert back.settings.logging.to_api.enabled is False
