"""Settings as defaults of options: accepted values, and the resulting options of an image."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_docker_attest.build_settings import BuildSettings
from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.layer_compression import GZIP, Compression
from prefect_docker_attest.options.default_values import apply_defaults, refused_by_graphdriver
from prefect_docker_attest.options.request import own_defaults
from prefect_docker_attest.options.table import BuildxOptions
from prefect_docker_attest.platforms import Platform

IMAGE = BuildxOptions(context="/")
TAGGED = BuildxOptions(context="/", tags=("registry:5000/app:v1", "other:v2"))
CACHE = "type=registry,ref=registry:5000/cache:1"


platform = Platform.of_user


def of(setting: str, value: str) -> BuildSettings:
    values: dict[str, Any] = {setting: value}
    return BuildSettings(**values)


def applied(settings: BuildSettings, options: BuildxOptions = IMAGE, image: str = "") -> BuildxOptions:
    return apply_defaults(settings, options, image, lambda: platform("linux/s390x"))


@pytest.mark.parametrize("value", ["linux/amd64", "linux/arm64/v8", "windows/amd64", "linux/x86_64"])
def test_one_platform_is_accepted(value: str) -> None:
    assert applied(BuildSettings(platform=value)).platforms == (platform(value),)


@pytest.mark.parametrize(("value", "completed"), [("arm64", "linux/arm64"), ("linux", "linux/s390x")])
def test_a_part_of_a_platform_is_completed_with_that_of_the_engine(value: str, completed: str) -> None:
    assert list(map(str, applied(BuildSettings(platform=value)).platforms)) == [completed]


@pytest.mark.parametrize(
    "value",
    ["arm46", "linux/", "/arm64", "5", "linux/amd64,linux/arm64", "linux/amd64 linux/arm64", "linux/a/b/c", "--x/y"],
)
def test_an_invalid_platform_is_refused(value: str) -> None:
    with pytest.raises(OptionError, match=r"^PREFECT_DOCKER_PLATFORM='.* (must be exactly one|is not a) platform"):
        applied(BuildSettings(platform=value))


def test_unset_settings_change_nothing() -> None:
    assert applied(BuildSettings()) is IMAGE
    assert BuildSettings().variables() == []


def test_an_option_of_the_image_replaces_the_default() -> None:
    settings = BuildSettings(platform="linux/arm64")
    image = BuildxOptions(context="/", platforms=(platform("linux/amd64"),))
    assert settings.without(own_defaults(image, {"path": "/"})) == BuildSettings()
    assert settings.without(own_defaults(IMAGE, {"path": "/"})) == settings


@pytest.mark.parametrize(
    ("value", "entries"),
    [
        (CACHE, [CACHE]),
        (f" {CACHE}\n\ntype=gha\ttype=local,src=/a ", [CACHE, "type=gha", "type=local,src=/a"]),
        (f"{CACHE}\ntype=local,src=/a,tag=b=c", [CACHE, "type=local,src=/a,tag=b=c"]),
        ('type=local,"src=/with blank, comma" type=gha', ['type=local,"src=/with blank, comma"', "type=gha"]),
        ("TYPE=s3,region=x,bucket=token-secret,name=n", ["TYPE=s3,region=x,bucket=token-secret,name=n"]),
    ],
)
def test_caches_are_separated_by_white_space(value: str, entries: list[str]) -> None:
    assert list(applied(BuildSettings(cache_from=value)).cache_from) == entries


@pytest.mark.parametrize(
    ("entry", "written"),
    [
        (CACHE, f"{CACHE},ignore-error=true"),
        (f"{CACHE},mode=max", f"{CACHE},mode=max,ignore-error=true"),
        (f"{CACHE},ignore-error=false", f"{CACHE},ignore-error=false"),
        (f"Ignore-Error=false,{CACHE}", f"Ignore-Error=false,{CACHE}"),
        ("type=inline", "type=inline"),
        ('type=local,"dest=/a, b"', 'type=local,"dest=/a, b",ignore-error=true'),
    ],
)
def test_cache_errors_are_ignored_unless_the_entry_says_otherwise(entry: str, written: str) -> None:
    assert applied(BuildSettings(cache_to=entry)).cache_to == (written,)


@pytest.mark.parametrize(
    ("options", "image", "expected"),
    [
        (TAGGED, "", "registry:5000/app v1 linux-s390x"),
        (TAGGED, "step:v3", "registry:5000/app v1 linux-s390x"),
        (IMAGE, "step/app:v3", "step/app v3 linux-s390x"),
        (
            BuildxOptions(context="/", tags=("app",), platforms=(platform("linux/arm64/v8"),)),
            "",
            "app latest linux-arm64-v8",
        ),
        (
            BuildxOptions(context="/", tags=("a:b",), platforms=(platform("linux/amd64"), platform("linux/arm64"))),
            "",
            "a b linux-amd64-linux-arm64",
        ),
    ],
)
def test_placeholders_name_the_image(options: BuildxOptions, image: str, expected: str) -> None:
    value = 'type=local,"src={image} {tag} {platform}"'
    assert applied(BuildSettings(cache_from=value), options, image).cache_from == (f'type=local,"src={expected}"',)


def test_the_placeholder_uses_the_platform_of_the_setting() -> None:
    settings = BuildSettings(platform="linux/arm64", cache_to="type=local,dest={platform}")
    assert applied(settings).cache_to == ("type=local,dest=linux-arm64,ignore-error=true",)


def test_the_engine_is_asked_for_its_platform_only_if_necessary() -> None:
    def never() -> Platform:
        raise AssertionError

    apply_defaults(BuildSettings(cache_from=CACHE, cache_to="type=inline"), TAGGED, "", never)
    apply_defaults(BuildSettings(cache_from="type=local,src={platform}", platform="linux/arm64"), TAGGED, "", never)


@pytest.mark.parametrize("setting", ["cache_from", "cache_to"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("registry.example.com/app:cache", "is not a valid cache entry"),
        ("ref=registry.example.com/app:cache", "is not a valid cache entry"),
        ("type=registry,ref", "is not a valid cache entry"),
        ('type=registry,"ref=a" b"', "is not a valid cache entry"),
        ("type=local,src=/with blank", "is not a valid cache entry"),
        ("{'type': 'gha'}", "is not a valid cache entry"),
        ("type=regsitry,ref=a", "has an unknown type; it must be one of registry, "),
        ("type=local,src={name}", "has the unknown placeholder {name}; known are {image}, {tag}, {platform}"),
        ("type=local,src={image}", "uses {image}, but the build has no name"),
        ("type=local,src={tag}", "uses {tag}, but the build has no name"),
    ],
)
def test_an_invalid_cache_entry_is_refused_with_the_variable(setting: str, value: str, reason: str) -> None:
    with pytest.raises(OptionError) as refused:
        applied(of(setting, value))
    assert refused.value.option == f"PREFECT_DOCKER_{setting.upper()}"
    assert refused.value.reason.startswith(reason)


@pytest.mark.parametrize("setting", ["cache_from", "cache_to"])
@pytest.mark.parametrize(
    "value",
    [
        "type=s3,bucket=b,secret_access_key=HIDDEN",
        "type=s3,bucket=b,access_key_id=i,session_token=HIDDEN",
        "type=gha,TOKEN=HIDDEN",
        "type=gha,ghtoken=HIDDEN",
        "type=azblob,account_key=HIDDEN",
        "type=azblob,account_url=https://x.blob.core.windows.net/?sv=1&sig=HIDDEN",
        "type=registry,ref=https://user:HIDDEN@example.com/app",
        "type=nosuch,token=HIDDEN",
        'type=gha,"token=HIDDEN',
        "type=gha token = HIDDEN",
        "{'type': 's3', 'secret_access_key': 'HIDDEN'}",
    ],
)
def test_a_credential_is_refused_without_being_shown(setting: str, value: str) -> None:
    with pytest.raises(OptionError, match="credential") as refused:
        applied(of(setting, value))
    assert "HIDDEN" not in f"{refused.value!s} {refused.value!r}"
    assert str(refused.value).startswith(f"PREFECT_DOCKER_{setting.upper()} must not contain ")


@pytest.mark.parametrize(
    "entry",
    [
        "type=registry,ref=reg.example.com/auth:cache",
        "type=registry,ref=reg/pass:1",
        "type=registry,ref=ghcr.io/org/tokenizer:cache",
        f"type=registry,ref=app:v1@sha256:{'a1' * 32}",
        "type=gha,scope=key:1",
        "type=local,src=/home/me@corp.example/keys/auth:cache",
        "type=s3,region=r,bucket=b,prefix=a@b,name=secret-service",
    ],
)
def test_names_and_folders_are_no_credentials(entry: str) -> None:
    assert applied(BuildSettings(cache_from=entry)).cache_from == (entry,)


@pytest.mark.parametrize(
    "entry",
    [
        "type=registry,ref=user:HIDDEN@host/x",
        "type=registry,ref=host/x,pwd=HIDDEN",
        "type=registry,ref=host/x,auth=HIDDEN",
        "type=azblob,account_url=https://x/?apikey=HIDDEN",
        "type=azblob,account_url=https://x/sig%3DHIDDEN",
        "type=s3,region=r,bucket=b,access_key_id=HIDDEN",
        "type=registry,ref=host/x,unknown=HIDDEN",
    ],
)
def test_what_can_be_a_credential_is_refused_by_its_form(entry: str) -> None:
    with pytest.raises(OptionError) as refused:
        applied(BuildSettings(cache_to=entry))
    assert "HIDDEN" not in str(refused.value)


def test_an_empty_list_of_the_image_counts_as_its_own() -> None:
    assert own_defaults(IMAGE, {"cache_from": [], "cache_to": None}) == ("cache_from",)


@pytest.mark.parametrize("value", ["docker", "oci", "OCI"])
def test_media_types_are_those_of_docker_or_oci(value: str) -> None:
    assert applied(BuildSettings(media_types=value)).media_types == value.lower()


def test_other_media_types_are_refused() -> None:
    with pytest.raises(OptionError, match=r"^PREFECT_DOCKER_MEDIA_TYPES='Docker,oci' .* 'docker' or 'oci'"):
        applied(BuildSettings(media_types="Docker,oci"))


def test_media_types_of_the_image_win() -> None:
    image = BuildxOptions(context="/", media_types="docker")
    assert BuildSettings(media_types="oci").without(own_defaults(image, {})) == BuildSettings()


def test_a_compression_without_media_types_implies_oci() -> None:
    for text, compression in (("zstd", Compression("zstd")), ("ZSTD:0", Compression("zstd", 0))):
        found = applied(BuildSettings(compression=text))
        assert (found.compression, found.media_types) == (compression, "oci")
    assert applied(BuildSettings(compression="uncompressed")).media_types == "oci"
    assert applied(BuildSettings(compression="gzip")).media_types is None
    assert applied(BuildSettings(compression="uncompressed", media_types="docker")).media_types == "docker"


def test_dockers_media_types_imply_gzip() -> None:
    assert applied(BuildSettings(media_types="docker")).compression == GZIP
    assert applied(BuildSettings(media_types="oci")).compression is None


@pytest.mark.parametrize(
    ("settings", "image", "names"),
    [
        (
            {"compression": "zstd:3", "media_types": "docker"},
            {},
            ("PREFECT_DOCKER_COMPRESSION", "PREFECT_DOCKER_MEDIA"),
        ),
        ({"compression": "zstd:3"}, {"media_types": "docker"}, ("PREFECT_DOCKER_COMPRESSION", "media_types")),
        ({"media_types": "docker"}, {"compression": Compression("zstd", 3)}, ("compression", "PREFECT_DOCKER_MEDIA")),
        ({}, {"compression": Compression("zstd", 3), "media_types": "docker"}, ("compression", "media_types")),
    ],
)
def test_zstd_and_dockers_media_types_are_refused_by_both_names(
    settings: dict[str, Any], image: dict[str, Any], names: tuple[str, str]
) -> None:
    with pytest.raises(OptionError, match=f"^{names[0]}='zstd:3' is not supported with {names[1]}"):
        applied(BuildSettings(**settings), BuildxOptions(context="/", **image))


@pytest.mark.parametrize("value", ["gzip:10", "zstd:23", "zstd:", "lz4", "uncompressed:1", "zstd 3", "zstd:003"])
def test_another_compression_is_refused_with_the_variable(value: str) -> None:
    with pytest.raises(OptionError, match=f"^PREFECT_DOCKER_COMPRESSION='{value}' must "):
        applied(BuildSettings(compression=value))


def test_the_compression_of_the_image_wins() -> None:
    image = BuildxOptions(context="/", compression=GZIP)
    assert BuildSettings(compression="zstd").without(own_defaults(image, {})) == BuildSettings()


@pytest.mark.parametrize("text", ["zstd", "uncompressed", "gzip:9", "gzip"])
def test_the_graphdriver_store_compresses_with_gzip_itself(text: str) -> None:
    settings = BuildSettings(compression=text)
    refused = refused_by_graphdriver(settings, applied(settings))
    assert str(refused or "").startswith(f"PREFECT_DOCKER_COMPRESSION='{text}' ") == (text != "gzip")
    image = BuildxOptions(context="/", compression=Compression.of_user(text))
    refused = refused_by_graphdriver(BuildSettings(), applied(BuildSettings(), image))
    assert str(refused or "").startswith(f"compression='{text}' ") == (text != "gzip")
