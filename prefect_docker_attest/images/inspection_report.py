"""Prints the results of `inspect`: as text, with colours on a terminal, or as JSON."""

from __future__ import annotations

import json
import os
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefect_docker_attest.images import manifest
from prefect_docker_attest.images.result import json_value
from prefect_docker_attest.terminal import console, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from prefect_docker_attest.images.checks import Checks
    from prefect_docker_attest.images.inspections import Result
    from prefect_docker_attest.images.result import Inspection, Layer
    from prefect_docker_attest.images.stripping import StripResult

# Style and word for each state of an image's layers.
_STATES = {
    "sound": ("green", "sound"),
    "corrupt": ("bold red", "CORRUPT"),
    "unverifiable": ("yellow", "not verifiable"),
    "unchecked": ("", ""),
}

CHECK_FAILED, NOT_READ = 1, 3
"""Exit codes: an image does not pass a check; no check failed, but an image could not be inspected."""

_AGAIN = "Build the image again with PREFECT_DOCKER_DISABLE_ATTESTATIONS=true, and push it."
_PROGRAMS = {"wrong": "bold red", "unknown": "yellow"}


class Report:
    """Prints the results of `inspect`. Images that could not be inspected are printed on standard error.

    In GitHub Actions, failed checks and these images are also printed as annotations, on standard error.

    Args:
        checks: what an image must have to pass
        quiet: whether to print only images that do not pass
        as_json: whether to print one JSON object at the end, instead of text
    """

    def __init__(self, checks: Checks, *, quiet: bool, as_json: bool) -> None:
        self._checks = checks
        self._quiet = quiet
        self._as_json = as_json
        self._failed = False
        self._images: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []

    def show(self, result: Result) -> None:
        """Print one result, and check its image."""
        if not result.inspection:
            error = f"{result.error} {result.tip}".strip()
            self._errors.append({"reference": result.reference, "error": error, "retryable": result.retryable})
            show_error(console(stderr=True), result)
            annotate(result.reference, result.error)
            return
        missing = self._checks.missing(result.inspection)
        failures = list(self._checks.failures(result.inspection))
        if self._as_json:
            extra = {"missing_platforms": missing, "republish": result.republish}
            self._images.append({**json_value(result.inspection), **extra})
        elif failures or not self._quiet:
            wrong = [
                *(f"There is no image for {platform}." for platform in missing),
                *self._checks.wrong_compressions(result.inspection),
            ]
            show_inspection(console(), result.inspection, wrong, result.republish)
        for failure in failures:
            self._failed = True
            annotate(result.reference, failure)

    def conclude(self) -> int:
        """Print the JSON object, and return the exit code."""
        code = CHECK_FAILED if self._failed else NOT_READ if self._errors else 0
        if self._as_json:
            document = {"ok": code == 0, "images": self._images, "errors": self._errors}
            click.echo(json.dumps(document, indent=2, default=json_value))
        return code


def annotate(reference: str, text: str) -> None:
    """In GitHub Actions, print an annotation about an image on standard error."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        # `printable` leaves no line ends (actions/toolkit, packages/core/src/command.ts).
        click.echo("::error::" + printable(f"{reference}: {text}").replace("%", "%25"), err=True)


def show_error(console: Console, result: Result | StripResult) -> None:
    """Print why the work for an image failed, and a line with the tip."""
    console.print(Text(printable(f"{result.reference}: {result.error}"), "red"), soft_wrap=True)
    if result.tip:
        console.print(Text(printable(f"TIP {result.tip}")), soft_wrap=True)


def show_inspection(console: Console, inspection: Inspection, wrong: Sequence[str], command: str | None) -> None:
    """Print the manifests, platforms and attestations of one image, and what to do about its problems.

    Args:
        console: console to print to
        inspection: inspection of the image
        wrong: sentences about what the image has or lacks against the user's wishes
        command: command that publishes the image again without attestations; `None` if there is none
    """
    kind = {**manifest.INDEX_KINDS, **manifest.MANIFEST_KINDS}.get(inspection.media_type, "manifest")
    title = Text.assemble((printable(inspection.reference), "bold"), f" ({printable(inspection.source)})")
    console.print(title, soft_wrap=True)
    note(console, "", f"{kind}, {inspection.media_type}")
    note(console, "", inspection.digest)
    _print_table(console, list(_rows(inspection)))
    for style, text in (*_findings(inspection, wrong), _verdict(inspection, command)):
        note(console, style, text)
    if command:
        # The command is not wrapped, so that users can copy it.
        console.print(Text(f"\n{printable(command)}", "cyan"), soft_wrap=True)
    console.print()


def _rows(inspection: Inspection) -> Iterator[list[Text]]:
    for image in inspection.images:
        style, word = _STATES[image.state]
        kinds = [
            manifest.predicate_kind(predicate_type)
            for attestation in inspection.attestations
            if attestation.image == image.digest
            for predicate_type in attestation.predicate_types or ("unknown",)
        ]
        yield [
            Text(printable(str(image.platform or "unknown"))),
            Text(f"{manifest.MANIFEST_KINDS.get(image.media_type, '').split(' ')[0]} {image.digest[:19]}"),
            Text(decimal(image.size)),
            Text.assemble(f"{len(image.layers) or '-'} ", (word, style)),
            Text(_compressions(image.layers)),
            Text(printable(", ".join(kinds)) or "none", "yellow" if kinds else ""),
        ]


def _compressions(layers: Sequence[Layer]) -> str:
    """Return the compression of the layers, with their numbers if it differs, such as ``gzip 1-3, zstd 4``."""
    numbers = enumerate((layer.compression for layer in layers), 1)
    runs = [(word, [number for number, _ in run]) for word, run in groupby(numbers, itemgetter(1))]
    if len(runs) < 2:  # noqa: PLR2004
        return runs[0][0] if runs else "-"
    return ", ".join(f"{word} {run[0]}-{run[-1]}" if run[1:] else f"{word} {run[0]}" for word, run in runs)


def _print_table(console: Console, rows: Sequence[Sequence[Text]]) -> None:
    titles = ("platform", "manifest", "size", "layers", "compression", "attestations")
    if not console.is_terminal:
        lines = [" ".join(cell.plain.rstrip() for cell in row) for row in rows]
        console.print(
            "", *(f"  {line}" for line in ("  ".join(titles), *lines)), "", sep="\n", markup=False, soft_wrap=True
        )
        return
    table = Table(*titles, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(*row)
    console.print(Padding(table, (1, 0, 1, 2)))


def _findings(inspection: Inspection, wrong: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the style and the text of each finding."""
    for image in inspection.images:
        name = image.platform or image.digest
        if image.detail:
            yield _STATES[image.state][0], f"{name}: {image.detail}"
        if image.programs.detail:
            yield _PROGRAMS.get(image.programs.state, ""), f"{name}: {image.programs.detail}"
    for sentence in wrong:
        yield "bold red", sentence
    for attestation in inspection.attestations:
        types = ", ".join(attestation.predicate_types) or "unknown predicate type"
        described = attestation.platform or "an image that this index does not list"
        yield "", f"attestation {attestation.digest[:19]} of {described}: {types}"
    for other in inspection.others:
        yield "", f"{other} is neither an image nor an attestation"


def note(console: Console, style: str, text: str) -> None:
    """Print a line about an image, with a margin."""
    line = Text(printable(text), style)
    if console.is_terminal:
        console.print(Padding(line, (0, 0, 0, 2)))
    else:  # other programs read it: no line breaks, and no spaces at the end
        console.print(Text("  ") + line, soft_wrap=True)


def _corruption(inspection: Inspection) -> str:
    if any("has the diff_id" in image.detail for image in inspection.images):
        return f"Corrupt: clusters refuse this image (`wrong diff id calculated on extraction`). {_AGAIN}"
    return "Corrupt: clusters refuse this image. Build it again, and push it."


def _verdict(inspection: Inspection, command: str | None) -> tuple[str, str]:
    if inspection.state == "corrupt":
        return "bold red", _corruption(inspection)
    if any(image.programs.state == "wrong" for image in inspection.images):
        tip = "Use a base image for the platform: `docker buildx imagetools inspect BASE` lists the platforms of BASE."
        return "bold red", f"Wrong programs: clusters cannot start this image (`exec format error`). {tip}"
    if inspection.attestations:
        if not command:
            return "yellow", f"The image has attestations. {_AGAIN}"
        return "yellow", "The image has attestations. This command publishes it again without them."
    kind = "Index of images" if manifest.is_index(inspection.media_type) else "Single manifest"
    if inspection.state == "unverifiable":
        return "yellow", f"{kind} without attestations. Some layers could not be verified."
    return "green", f"{kind} without attestations."
