"""Prints the results of `strip`: as text, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from prefect_docker_attest.images.inspection_report import CHECK_FAILED, NOT_READ, annotate, note, show_error
from prefect_docker_attest.terminal import console, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_docker_attest.images.stripping import Stripped, StripResult


class StripReport:
    """Prints the results of `strip`. Images that failed are printed on standard error.

    Args:
        as_json: whether to print one JSON object at the end, instead of text
        restores: whether tags were put back
        verified: whether all layers were read
    """

    def __init__(self, *, as_json: bool, restores: bool, verified: bool) -> None:
        self._as_json = as_json
        self._restores = restores
        self._verified = verified
        self._failed: list[StripResult] = []
        self._images: list[dict[str, Any]] = []

    def show(self, result: StripResult) -> None:
        """Print one result."""
        if not result.stripped:
            self._failed.append(result)
            show_error(console(stderr=True), result)
            annotate(result.reference, result.error)
        elif self._as_json:
            self._images.append(asdict(result.stripped))
        else:
            self._print(result.stripped)

    def conclude(self) -> int:
        """Print the JSON object, and return the exit code."""
        unsound = any(result.unsound for result in self._failed)
        code = CHECK_FAILED if unsound else NOT_READ if self._failed else 0
        if self._as_json:
            errors = [
                {"reference": failed.reference, "error": f"{failed.error} {failed.tip}".strip()}
                | {"retryable": failed.retryable}
                for failed in self._failed
            ]
            click.echo(json.dumps({"ok": code == 0, "images": self._images, "errors": errors}, indent=2))
        return code

    def _print(self, stripped: Stripped) -> None:
        output = console()
        output.print(Text(printable(stripped.reference), "bold"), soft_wrap=True)
        first = _restored(stripped) if self._restores else _done(stripped)
        note(output, "green" if stripped.written else "", first)
        if stripped.old_digest != stripped.new_digest:
            note(output, "", f"old digest: {stripped.old_digest}")
        note(output, "", f"new digest: {stripped.new_digest}")
        for text in () if self._restores else _consequences(stripped, verified=self._verified):
            note(output, "", text)
        if stripped.restore:
            note(output, "", "This command puts the tag back:")
            # The command is not wrapped, so that users can copy it.
            output.print(Text(f"\n{printable(stripped.restore)}", "cyan"), soft_wrap=True)
        output.print()


def _restored(stripped: Stripped) -> str:
    if stripped.written:
        return f"{stripped.target} was put back."
    return f"{stripped.target} was not written."


def _done(stripped: Stripped) -> str:
    found = f"{len(stripped.removed)} attestations" if len(stripped.removed) > 1 else "1 attestation"
    found = f"The image has {found if stripped.removed else 'no attestations'}."
    if stripped.written:
        return (
            f"{found} {stripped.target} was put on the image without them."
            if stripped.removed
            else (f"{found} {stripped.target} was put on it.")
        )
    return f"{found} {stripped.target} was not written."


def _consequences(stripped: Stripped, *, verified: bool) -> Iterator[str]:
    if not verified:
        yield "The layers were not checked. --verify-layers checks them."
    if not stripped.removed:
        return
    yield "Signatures of the old digest do not apply to the new one."
    if stripped.referrers:
        number = len(stripped.referrers)
        yield f"Registries with the referrers API still list attestations of these images (with a `subject`: {number})."
    for other in stripped.others:
        yield f"{other} is neither an image nor an attestation, and is not listed any more."
