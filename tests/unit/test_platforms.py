"""Platforms: what users may write, what documents name, and which are the same."""

from __future__ import annotations

import pytest

from prefect_docker_attest.platforms import NotAPlatformError, Platform

ENGINE = Platform.of_user("linux/arm64")


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("amd64", "linux/amd64"),
        ("x86-64", "linux/x86-64"),
        ("aarch64", "linux/aarch64"),
        ("linux", "linux/arm64"),
        ("arm64/v8", "linux/arm64/v8"),
        ("armel", "linux/armel"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("Linux/AMD64", "Linux/AMD64"),
        ("wasi/wasm", "wasi/wasm"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("linux/ppc64le/power9", "linux/ppc64le/power9"),
        ("local", "local"),
    ],
)
def test_the_text_of_the_user_is_kept(text: str, completed: str) -> None:
    platform = Platform.of_user(text)
    assert str(platform) == text
    assert str(platform.completed(ENGINE)) == completed


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("linux-amd64", "linux/amd64"),
        ("linux:arm64", "linux/arm64"),
        ("x64", "amd64"),
        ("x86", "386"),
        ("amd46", "amd64"),
        ("linux/amd46", "linux/amd64"),
        ("linx/amd64", "linux/amd64"),
        ("arm64v8", "arm64/v8"),
        ("arm32v7", "arm/v7"),
        ("linux/arm64v8", "linux/arm64/v8"),
        ("linux/amd64/v9", "linux/amd64"),
        ("linux/", ""),
        ("", ""),
        ("/", ""),
        ("nonsense", ""),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_one(text: str, nearest: str) -> None:
    with pytest.raises(NotAPlatformError) as refused:
        Platform.of_user(text)
    assert refused.value.nearest == nearest


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("linux/arm64", "linux/aarch64/v8", True),
        ("linux/arm", "linux/armhf", True),
        ("linux/armel", "linux/arm/v6", True),
        ("linux/armel", "linux/arm", False),
        ("linux/amd64", "linux/x86_64/v1", True),
        ("linux/amd64", "linux/amd64/v2", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_platforms_match_if_they_mean_the_same(one: str, other: str, same: bool) -> None:
    assert Platform.of_user(one).matches(Platform.of_user(other)) is same
    assert Platform.of_user(one).matches(Platform.of_text(other)) is same


def test_documents_can_name_any_platform() -> None:
    unknown = Platform.of_text("unknown/unknown")
    assert unknown
    assert str(unknown) == "unknown/unknown"
    assert Platform.of_document("linux", "") is None
    assert Platform.of_document(None, "amd64") is None
    assert Platform.of_text("no platform") is None
    assert Platform.of_document("linux", "arm", "7") == Platform.of_user("linux/arm/v7")
