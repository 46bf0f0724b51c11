"""The platform that a Dockerfile sets for the stage that is built."""

from __future__ import annotations

import pytest

from prefect_docker_attest.buildx.stage_platforms import pinned_platform
from prefect_docker_attest.platforms import Platform

AMD64, ARM64 = Platform.of_user("linux/amd64"), Platform.of_user("linux/arm64")

CROSS = """\
FROM --platform=$BUILDPLATFORM golang AS build
RUN make
FROM busybox
COPY --from=build /app /app
"""


@pytest.mark.parametrize(
    ("dockerfile", "target", "build_args", "expected"),
    [
        ("FROM busybox", None, {}, None),
        ("FROM --platform=linux/amd64 busybox", None, {}, AMD64),
        ("from --Platform=linux/amd64   busybox as Base\nFROM base\n", None, {}, AMD64),
        ("FROM --platform=$BUILDPLATFORM busybox", None, {}, AMD64),
        ("FROM --platform=${TARGETPLATFORM} busybox", None, {}, ARM64),
        ("FROM --platform=linux/$TARGETARCH busybox", None, {}, ARM64),
        ("FROM --platform=linux/${BUILDARCH} busybox", None, {}, AMD64),
        (CROSS, None, {}, None),
        (CROSS, "build", {}, AMD64),
        (CROSS, "BUILD", {}, AMD64),
        (CROSS, "0", {}, AMD64),
        (CROSS, "1", {}, None),
        (CROSS, "nosuch", {}, None),
        ("ARG P=linux/amd64\nFROM --platform=$P busybox", None, {}, AMD64),
        ("ARG P=linux/amd64\nFROM --platform=$P busybox", None, {"P": "linux/arm64"}, ARM64),
        ('ARG A=1 P="linux/amd64"\nFROM --platform=${P} busybox', None, {}, AMD64),
        ("FROM --platform=${P:-linux/amd64} busybox", None, {}, AMD64),
        ("FROM --platform=$UNKNOWN busybox", None, {}, None),
        ("FROM busybox AS a\nARG P=linux/amd64\nFROM --platform=$P busybox", None, {}, None),
        ("# FROM --platform=linux/amd64 a\nFROM busybox", None, {}, None),
        ("FROM \\\n  # comment\n  --platform=linux/amd64 \\\n  busybox", None, {}, AMD64),
        ("# escape=`\nFROM `\n--platform=linux/amd64 busybox", None, {}, AMD64),
        ("FROM busybox\nRUN <<EOF\nFROM --platform=linux/amd64 x\nEOF\n", None, {}, None),
        (
            'FROM busybox\nLABEL n="$((1<<2))"\nRUN echo $((1<<2)) <<<word\nFROM --platform=linux/amd64 x',
            None,
            {},
            AMD64,
        ),
        ("ARG TARGETPLATFORM=linux/amd64\nFROM --platform=$TARGETPLATFORM busybox", None, {}, AMD64),
        ("FROM --platform=$TARGETPLATFORM busybox", None, {"TARGETPLATFORM": "linux/amd64"}, AMD64),
        ('FROM --platform="linux/amd64" busybox', None, {}, AMD64),
        ("FROM --platform=${X-linux/amd64} busybox", None, {}, AMD64),
        ("ARG P=1\nFROM --platform=${P:+linux/amd64} busybox", None, {}, AMD64),
        ("FROM --platform=linux/amd64 scratch", None, {}, None),
        ("FROM busybox\n# escape=`\nFROM \\\n--platform=linux/amd64 busybox", None, {}, AMD64),
        ("\r\n" * 40_000 + "FROM --platform=linux/amd64 busybox", None, {}, AMD64),
        ("", None, {}, None),
    ],
)
def test_only_the_base_of_the_built_stage_counts(
    dockerfile: str, target: str | None, build_args: dict[str, str], expected: Platform | None
) -> None:
    assert pinned_platform(dockerfile, target, build_args, ARM64, AMD64) == expected
