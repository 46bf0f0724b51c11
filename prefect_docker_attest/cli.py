"""The command ``prefect-docker-attest``: checks the setup, inspects images, and removes their attestations."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from prefect_docker_attest.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect_docker_attest.layer_compression import Method
    from prefect_docker_attest.platforms import Platform

Command = TypeVar("Command", bound="Callable[..., Any]")

_LAST_MOMENT = 0.2  # seconds for threads to end after their last result
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

_ISSUE = "https://github.com/PrefectHQ/prefect/issues/19337"
_STORE = "https://docs.docker.com/engine/storage/containerd/"
_ATTESTATIONS = "https://docs.docker.com/build/metadata/attestations/"


def _quiet(meaning: str) -> Callable[[Command], Command]:
    return click.option("-q", "--quiet", is_flag=True, help=meaning)


def _more(about: str, address: str, *examples: str) -> str:
    """Return the end of a command's help: examples, and a link."""
    # \b keeps click from wrapping the lines of a paragraph.
    lines = "\n".join(f"  prefect-docker-attest {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n\b\n{about}:\n  {address}"


def _print_versions(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from prefect_docker_attest.versions import versions

    click.echo(versions())
    _leave(0)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_more(
        "The error that this package fixes",
        _ISSUE,
        "doctor",
        "inspect --verify-layers registry.example.com/app:v1",
        "strip registry.example.com/app:v1",
    ),
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_versions,
    help="Show the versions of this package, Python, Prefect, docker-py, docker, buildx and the engine.",
)
def main() -> None:
    """Check how Prefect builds Docker images here, inspect images, and remove their attestations."""


@main.command(
    short_help="Check the setup of Prefect and Docker.",
    epilog=_more(
        "What the image store is", _STORE, "doctor", "doctor --strict --quiet  # in CI", "doctor --json > doctor.json"
    ),
)
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning, too.")
@click.option(
    "--timeout",
    "limit",
    metavar="SECONDS",
    type=click.IntRange(min=1, max=3600),
    default=30,
    show_default=True,
    help="Do not wait longer than this for Prefect's import, Docker and settings files.",
)
@_quiet("Show only problems and what could not be checked, and with --strict warnings.")
@_JSON
def doctor(strict: bool, limit: int, quiet: bool, as_json: bool) -> None:
    """Check the setup: Prefect, docker-py, the docker CLI, buildx, the engine and the settings.

    Each problem comes with a command that fixes it.

    Exit code: 0 if there are no problems (there may be warnings), 1 if there is a problem, 3 if there is none, but
    something could not be checked.
    """
    from prefect_docker_attest.doctor.check import STATUSES
    from prefect_docker_attest.doctor.checkup import exit_code, failing, run_checks
    from prefect_docker_attest.doctor.doctor_report import Report

    _refuse_both(quiet, as_json)
    if as_json:
        findings = run_checks(limit)
        code = exit_code(findings.values(), strict=strict)
        _print_json({"ok": code == 0, "checks": [{"name": name, **asdict(found)} for name, found in findings.items()]})
    else:
        with Report(console(), failing(strict=strict) if quiet else STATUSES) as report:
            findings = run_checks(limit, report.show)
        report.conclude(findings)
        code = exit_code(findings.values(), strict=strict)
    _leave(code)


def _refuse_both(quiet: bool, as_json: bool) -> None:
    if quiet and as_json:
        raise click.UsageError("--quiet and --json cannot be used together.")


def _platforms(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[Platform]:
    from prefect_docker_attest.images.checks import expected_platform

    try:
        return [expected_platform(value) for value in values]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@main.command(
    epilog=_more(
        "What attestations are",
        _ATTESTATIONS,
        "inspect registry.example.com/app:v1",
        "inspect --verify-layers --engine app:v1",
        "inspect --quiet --fail-on-attestations IMAGE IMAGE",
    ),
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--engine", is_flag=True, help="Inspect images in the Docker Engine or in Podman instead of the registry."
)
@click.option(
    "--verify-layers",
    is_flag=True,
    help="Read every layer. Compare it with the image's config, and its programs with the image's platform.",
)
@click.option("--fail-on-attestations", is_flag=True, help="Exit with 1 if an image has attestations.")
@click.option(
    "--fail-on-corruption",
    is_flag=True,
    help="Exit with 1 if a layer is corrupt or cannot be verified. Includes --verify-layers.",
)
@click.option(
    "--fail-on-platform",
    is_flag=True,
    help="Exit with 1 if the programs in an image are for another platform, or cannot be checked. Includes "
    "--verify-layers.",
)
@click.option(
    "--fail-on-compression",
    "compressions",
    type=click.Choice(["gzip", "zstd", "uncompressed"]),
    multiple=True,
    help="Exit with 1 if a layer has this compression, or if its compression is unknown. Can be used several times. "
    "With --engine, it reads every layer.",
)
@click.option(
    "--expect-platform",
    "expected",
    metavar="OS/ARCH",
    multiple=True,
    callback=_platforms,
    help="Exit with 1 if an image lacks this platform, such as linux/amd64. Can be used several times.",
)
@_quiet("Show only images that fail a --fail-on or --expect-platform check, or cannot be inspected.")
@_JSON
def inspect(  # noqa: PLR0917 click passes each option as an argument
    images: tuple[str, ...],
    engine: bool,
    verify_layers: bool,
    fail_on_attestations: bool,
    fail_on_corruption: bool,
    fail_on_platform: bool,
    compressions: tuple[Method, ...],
    expected: list[Platform],
    quiet: bool,
    as_json: bool,
) -> None:
    """Show an image's manifests, platforms, layers and attestations.

    Images are read from their registry with the credentials of `docker login`, because clusters pull them from there.
    With --engine, IMAGE is the name or id of an image in the Docker Engine or in Podman.

    Exit code: 0 if all images were inspected and pass the --fail-on and --expect-platform checks, 1 if an image fails
    such a check, 3 if no check failed, but an image could not be inspected.
    """
    from prefect_docker_attest.images.checks import Checks
    from prefect_docker_attest.images.inspection_report import Report
    from prefect_docker_attest.images.inspections import inspect_images
    from prefect_docker_attest.terminal import Bars

    _refuse_both(quiet, as_json)
    bars = Bars()
    checks = Checks(fail_on_attestations, fail_on_corruption, fail_on_platform, expected, compressions)
    # An engine lists the manifests of an image without their layers.
    reads = verify_layers or checks.read_layers or (engine and bool(compressions))
    report = Report(checks, quiet=quiet, as_json=as_json)
    with bars.shown():
        for result in inspect_images(images, bars.meter, engine=engine, verify_layers=reads):
            with bars.hidden():
                report.show(result)
    sys.exit(report.conclude())


@main.command(
    epilog=_more(
        "What attestations are",
        _ATTESTATIONS,
        "strip --dry-run registry.example.com/app:v1",
        "strip registry.example.com/app:v1",
        "strip --tag v1-plain registry.example.com/app:v1",
    ),
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--tag", metavar="NEW", help="Write this tag of the same repository, and keep the image's own tag as it is."
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option(
    "--verify-layers",
    is_flag=True,
    help="Read every layer first. Write nothing if a layer is corrupt or cannot be verified, or if programs are for "
    "another platform.",
)
@click.option("--restore", is_flag=True, help="Put tags back: IMAGE is NAME:TAG@sha256:DIGEST.")
@_JSON
def strip(  # noqa: PLR0917 click passes each option as an argument
    images: tuple[str, ...], tag: str | None, dry_run: bool, verify_layers: bool, restore: bool, as_json: bool
) -> None:
    """Remove the attestations of images in registries.

    The tag is put on the image's own manifest, or on a new index that lists only the images of several platforms.
    No layer is transferred. The credentials are those of `docker login`.

    Exit code: 0 if all images have no attestations now, 1 if an image is corrupt or does not pass --verify-layers, 3 if
    there is no such image, but an image could not be read or written.
    """
    from prefect_docker_attest.images import stripping
    from prefect_docker_attest.images.strip_report import StripReport
    from prefect_docker_attest.terminal import Bars

    names = list(dict.fromkeys(images))
    if problem := stripping.usage_problem(names, tag, restore=restore):
        raise click.UsageError(problem)
    bars = Bars()
    report = StripReport(as_json=as_json, restores=restore, verified=verify_layers)
    if restore:
        results = stripping.restore_images(names, bars.meter, dry_run=dry_run)
    else:
        results = stripping.strip_images(names, bars.meter, tag=tag, verify_layers=verify_layers, dry_run=dry_run)
    with bars.shown():
        for result in results:
            with bars.hidden():
                report.show(result)
    sys.exit(report.conclude())


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _leave(code: int) -> NoReturn:
    """Exit. If a thread of the doctor still waits for an answer, do not wait for it, as Python's own exit may do."""
    end = time.monotonic() + _LAST_MOMENT
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(_LAST_MOMENT / 100)
    if threading.active_count() == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
