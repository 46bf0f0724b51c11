"""The command ``prefect-docker-attest``: why builds are switched or not, and what was shipped."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from prefect_docker_attest.inspection import Inspection

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prefect-docker-attest")
def main() -> None:
    """Docker images that Prefect builds: are they built without attestations, and is what was shipped sound?"""


@main.command()
@_JSON
def doctor(as_json: bool) -> None:
    """Say whether builds are switched here, why, and what to do next.

    Ends with 0 where all is well (warnings included), with 1 where it is not.
    """
    from prefect_docker_attest import doctor as examination
    from prefect_docker_attest.checks import well

    checks = examination.examine()
    if as_json:
        _print_json({"ok": well(checks), "checks": [asdict(check) for check in checks]})
    else:
        from prefect_docker_attest import report

        report.show_checks(_console(), checks)
    sys.exit(0 if well(checks) else 1)


@main.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--engine", is_flag=True, help="Look into the Docker Engine, and not into the registry.")
@click.option("--verify-layers", is_flag=True, help="Read every layer, and compare it with what the config says of it.")
@click.option("--fail-on-attestations", is_flag=True, help="End with 1 where an image carries attestations.")
@click.option(
    "--fail-on-corruption", is_flag=True, help="End with 1 where layers are not, or not provably, sound. Verifies them."
)
@_JSON
def inspect(  # noqa: PLR0917 click's own way
    images: tuple[str, ...],
    engine: bool,
    verify_layers: bool,
    fail_on_attestations: bool,
    fail_on_corruption: bool,
    as_json: bool,
) -> None:
    """Say what IMAGEs are: manifest or index, platforms, attestations, and whether their layers are sound.

    They are looked up in their registry, since that is what clusters pull, with the credentials of `docker login`.
    With --engine they are names or ids of images in the Docker Engine; nothing is looked up in both.

    Ends with 0; with 1 where an image cannot be inspected, or is what a --fail-on option names.
    """
    from prefect_docker_attest import inspection

    found: list[dict[str, Any]] = []
    failures = []
    failed = False
    for reference in images:
        try:
            one, command = _inspect(reference, engine=engine, verify_layers=verify_layers or fail_on_corruption)
        except inspection.ImageError as error:
            failures.append({"reference": reference, "error": str(error)})
            Console(stderr=True, highlight=False).print(
                f"{reference}: {error}", style="red", markup=False, soft_wrap=True
            )
            continue
        failed |= fail_on_attestations and bool(one.attestations)
        failed |= fail_on_corruption and one.state != "sound"
        if as_json:
            found.append({**asdict(one), "republish": command})
        else:
            from prefect_docker_attest import report

            report.show_inspection(_console(), one, command)
    failed |= bool(failures)
    if as_json:
        _print_json({"ok": not failed, "images": found, "errors": failures})
    sys.exit(1 if failed else 0)


def _inspect(reference: str, *, engine: bool, verify_layers: bool) -> tuple[Inspection, str | None]:
    """An image, and the command that publishes it without its attestations, where it has any."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from prefect_docker_attest import engine_image, inspection, registry

    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, console=errors, transient=True)
    # Where it is no terminal, rich 13 prints an empty line even for a bar that is disabled.
    with progress if errors.is_terminal else contextlib.nullcontext():
        if engine:
            image = engine_image.EngineImage(reference, verify_layers=verify_layers, progress=progress)
            return inspection.inspect_image(image, reference, verify_layers=verify_layers), None
        name = registry.Reference.parse(reference)
        with registry.RegistryImage(name, progress) as source:
            found = inspection.inspect_image(source, reference, verify_layers=verify_layers)
    if not found.attestations or not found.images or found.state == "corrupt":
        return found, None
    from prefect_docker_attest import buildx

    flags = ""
    with contextlib.suppress(OSError):  # no docker CLI here
        flags = buildx.ask(["docker"], "buildx", "imagetools", "create", "--help").stdout
    tag = name.tag or "TAG"
    return found, inspection.republishing(found, name.name, tag, prefer_index_flag="--prefer-index" in flags)


def _console() -> Console:
    return Console(highlight=False)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
