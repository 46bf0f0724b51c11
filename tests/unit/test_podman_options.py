"""On Podman, what needs BuildKit is refused by name, and what its own builder does anyway is not."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_docker_attest.build_settings import DEFAULTS, BuildSettings
from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options.podman_options import PodmanOptions, podman_options, settings_for_buildkit
from prefect_docker_attest.options.table import ROWS, BuildxOptions, Row
from prefect_docker_attest.platforms import Platform

BUILDX_ONLY = [row for row in ROWS if row.docker_py is None]
UNSET = BuildxOptions(context="")
# Values of options; each option accepts at least one of them.
CANDIDATES = ("oci", "zstd", True, ["id=a,env=A"], {"a": "b"}, "linux/amd64,linux/arm64", "x", 3)


def _options(settings: BuildSettings | None = None, **given: Any) -> PodmanOptions:
    engine = Platform.of_text("linux/amd64")
    return podman_options(given, settings or BuildSettings(), "5.4.2", lambda: engine)


def _value(row: Row) -> Any:
    """Return a value that sets an option."""
    for value in CANDIDATES:
        try:
            converted = row.convert(row.name, value)
        except OptionError:
            continue
        if converted != getattr(UNSET, row.name):
            return value
    raise AssertionError(f"add a value of {row.name} to CANDIDATES")


@pytest.mark.parametrize("row", BUILDX_ONLY, ids=lambda row: row.name)
def test_each_buildx_only_option_is_refused_by_name(row: Row) -> None:
    with pytest.raises(
        OptionError, match=rf"^{row.name}\S* is not supported by Podman 5\.4\.2, which builds with Buildah"
    ):
        _options(**{row.name: _value(row)})


@pytest.mark.parametrize("row", BUILDX_ONLY, ids=lambda row: row.name)
def test_an_option_that_asks_for_nothing_is_left_out(row: Row) -> None:
    assert _options(path=".", **{row.name: None}).docker_py == {"path": "."}


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "platform"])
def test_each_setting_but_the_platform_is_refused_by_name(name: str) -> None:
    value: Any = {"media_types": "oci", "compression": "zstd", "push_from_builder": True}.get(name, "type=inline")
    settings = BuildSettings(**{name: value})
    assert settings_for_buildkit(settings) == [name]
    with pytest.raises(
        OptionError, match=rf"^PREFECT_DOCKER_{name.upper()}\S* is not supported by Podman .*\nTIP Unset"
    ):
        _options(settings)


def test_a_secret_is_not_part_of_the_error() -> None:
    with pytest.raises(OptionError) as refused:
        _options(cache_to="type=s3,bucket=b,secret_access_key=hidden")
    assert "hidden" not in str(refused.value)


def test_an_image_overrides_a_setting() -> None:
    settings = BuildSettings(platform="linux/s390x", media_types="oci", cache_from="type=registry,ref=a")
    options = _options(settings, platform="arm64", media_types="docker", cache_from=["busybox"])
    assert options.docker_py == {"platform": "linux/arm64", "cache_from": ["busybox"]}
    assert options.settings.defaults == ()


@pytest.mark.parametrize(
    ("given", "platform"),
    [
        ({"platform": "amd64"}, "linux/amd64"),
        ({"platforms": ["linux/aarch64"]}, "linux/aarch64"),
        ({"platform": "linux/arm/v7"}, "linux/arm/v7"),
        ({"platform": "arm/v7"}, "linux/arm/v7"),
        ({"platform": "linux/arm/v6"}, "linux/arm/v6"),
        ({"platform": "local"}, "linux/amd64"),
        ({"platform": "linux/arm64", "platforms": "linux/arm64"}, "linux/arm64"),
    ],
)
def test_a_platform_is_passed_to_docker_py(given: dict[str, Any], platform: str) -> None:
    assert _options(**given).docker_py == {"platform": platform}


def test_attestations_are_refused_only_if_the_setting_does_not_overrule_them() -> None:
    assert _options(provenance=False, sbom="false", attest=[]).docker_py == {}
    on = _options(BuildSettings(disable_attestations=True), provenance=True, sbom=True)
    assert (on.docker_py, on.overruled) == ({}, ["provenance=true", "sbom=true"])
    with pytest.raises(OptionError, match=r"^provenance='true' is not supported by Podman"):
        _options(provenance=True)


@pytest.mark.parametrize("options", [{"media_types": "docker"}, {"compression": "gzip"}])
def test_what_podman_pushes_anyway_is_accepted(options: dict[str, Any]) -> None:
    assert _options(**options).docker_py == {}
    assert _options(BuildSettings(**options)).docker_py == {}
    assert settings_for_buildkit(BuildSettings(**options)) == []


def test_options_of_docker_py_are_not_changed() -> None:
    given: dict[str, Any] = {
        "path": ".",
        "squash": True,
        "container_limits": {"memory": 1},
        "isolation": "chroot",
        "network_mode": "x",
    }
    assert _options(**given).docker_py == given
