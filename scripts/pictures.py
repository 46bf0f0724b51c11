"""Draws the pictures in the README from real runs of doctor and inspect: `scripts/tox -e pictures`.

The pictures show the final output of the commands with 100 columns. The names of this machine, its folders and its
registry are replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import docker
from rich.console import Console

from engines import private
from prefect_docker_attest.doctor.checkup import run_checks
from prefect_docker_attest.doctor.doctor_report import Report
from prefect_docker_attest.images.inspection_report import show_inspection
from prefect_docker_attest.images.inspections import inspect_images
from prefect_docker_attest.names import SETTING
from prefect_docker_attest.terminal import Bars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import PrivateDocker

DOCS = Path(__file__).resolve().parent.parent / "docs"
COMMAND = "prefect-docker-attest"
# Browsers would download these fonts from another server.
FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def main() -> None:
    """Draw both pictures."""
    with private.start(stores=("containerd",)) as engines, tempfile.TemporaryDirectory() as folder:
        engine = engines.engines["containerd"]
        os.environ.update(engine.environment)
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        os.environ["PREFECT_PROFILES_PATH"] = os.path.join(folder, "profiles.toml")
        os.environ[SETTING] = "true"
        os.chdir(folder)
        draw_doctor()
        draw_inspect(engines)


def draw_doctor() -> None:
    """Draw the doctor's output with the setting on, on an engine with the containerd image store."""
    names = {sys.prefix: "/srv/flows/.venv", platform.node(): "host"}
    with picture("doctor", f"{COMMAND} doctor") as console:
        found = {
            name: dataclasses.replace(finding, found=replaced(finding.found, names))
            for name, finding in run_checks().items()
        }
        report = Report(console)
        console.print(report.table(found))
        report.conclude(found)


def draw_inspect(engines: PrivateDocker) -> None:
    """Draw the output for a corrupt image of the classic builder, and for an image of buildx with attestations."""
    engine, address = engines.engines["containerd"], engines.registry.address
    Path("Dockerfile").write_text("FROM busybox\nCOPY Dockerfile /flows/\n")
    engine.run("docker", "pull", "busybox")
    classic, buildx = f"{address}/flows:v1", f"{address}/flows:v2"
    list(docker.from_env().api.build(path=".", tag=classic, platform="linux/arm64"))
    engine.run("docker", "buildx", "build", "--platform=linux/arm64", "--load", f"--tag={buildx}", ".")
    for name in (classic, buildx):
        engine.run("docker", "push", name)
    names = {address: "registry.example.com"}
    with picture("inspect", f"{COMMAND} inspect --verify-layers registry.example.com/flows:v1 …:v2") as console:
        for result in inspect_images([classic, buildx], Bars().meter, engine=False, verify_layers=True):
            if result.inspection is None:
                raise SystemExit(result.error)
            found = result.inspection
            shown = dataclasses.replace(
                found, reference=replaced(found.reference, names), source=replaced(found.source, names)
            )
            command = replaced(result.republish, names) if result.republish else None
            show_inspection(console, shown, [], command)


def replaced(text: str, names: dict[str, str]) -> str:
    """Return the text with the names of this machine replaced."""
    for name, other in names.items():
        text = text.replace(name, other)
    return text


@contextlib.contextmanager
def picture(name: str, title: str) -> Iterator[Console]:
    """Give a console whose output is saved as `docs/NAME.svg`."""
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False, force_terminal=True)
    yield console
    drawing = console.export_svg(title=title, unique_id=name)
    (DOCS / f"{name}.svg").write_text(FONT.sub("", drawing), encoding="utf-8")
    print(f"wrote {DOCS / f'{name}.svg'}")


if __name__ == "__main__":
    main()
