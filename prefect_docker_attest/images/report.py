"""What the command line shows to people, by rich: in colour on a terminal, within its width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefect_docker_attest import manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from prefect_docker_attest.checks import Check
    from prefect_docker_attest.inspection import Inspection

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}
_STATES = {
    "sound": ("green", "sound"),
    "corrupt": ("bold red", "CORRUPT"),
    "unverifiable": ("yellow", "not verifiable"),
    "unchecked": ("", ""),
}


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """The doctor's findings: a line each, and below it what to do next."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        found = Text(check.found, "dim" if check.status == "skipped" else "")
        if check.advice:
            found.append(f"\n-> {check.advice}", "cyan")
        table.add_row(Text(check.status, _STYLES[check.status]), Text(check.name, "bold"), found)
    console.print(table)
    statuses = [check.status for check in checks]
    counts = [f"{word}s: {statuses.count(word)}" for word in ("problem", "warning") if word in statuses]
    worst = next((word for word in ("problem", "warning") if word in statuses), "ok")
    console.print(Text(f"\n{', '.join(counts) or 'All is well'}", _STYLES[worst]))


def show_inspection(console: Console, inspection: Inspection, command: str | None) -> None:
    """One image: what it is, its platforms, its attestations, and what to do about it.

    Args:
        console: where to
        inspection: of the image
        command: publishes the image again without attestations, where that can be done
    """
    kind = {**manifest.INDEX_KINDS, **manifest.MANIFEST_KINDS}.get(inspection.media_type, "manifest")
    console.print(Text.assemble((inspection.reference, "bold"), f" ({inspection.source})"), soft_wrap=True)
    _note(console, "", f"{kind}, {inspection.media_type}\n{inspection.digest}")
    table = Table(
        "platform", "manifest", "size", "layers", "attestations", box=None, pad_edge=False, header_style="dim"
    )
    for image in inspection.images:
        style, word = _STATES[image.state]
        kinds = [
            manifest.predicate_kind(one)
            for attestation in inspection.attestations
            if attestation.image == image.digest
            for one in attestation.predicate_types or ("unknown",)
        ]
        table.add_row(
            image.platform or "not named",
            f"{manifest.MANIFEST_KINDS.get(image.media_type, '').split(' ')[0]} {image.digest[:19]}",
            decimal(image.size),
            Text.assemble(f"{len(image.layers)} ", (word, style)),
            Text(", ".join(kinds) or "none", "yellow" if kinds else ""),
        )
    console.print(Padding(table, (1, 0, 1, 2)))
    for image in inspection.images:
        if image.detail:
            _note(console, _STATES[image.state][0], f"{image.platform or image.digest}: {image.detail}")
    for attestation in inspection.attestations:
        types = ", ".join(attestation.predicate_types) or "its content is not here"
        of = attestation.platform or "no image of this index"
        _note(console, "", f"attestation {attestation.digest[:19]} of {of}: {types}")
    for other in inspection.others:
        _note(console, "", f"{other} is neither an image nor an attestation")
    _note(console, *_verdict(inspection, command))
    if command:
        # Not wrapped: it is there to be copied.
        console.print(Text(f"\n{command}", "cyan"), soft_wrap=True)
    console.print()


def _note(console: Console, style: str, text: str) -> None:
    console.print(Padding(Text(text, style), (0, 0, 0, 2)))


def _verdict(inspection: Inspection, command: str | None) -> tuple[str, str]:
    again = "Build it again with PREFECT_DOCKER_DISABLE_ATTESTATIONS=true, and push it."
    if inspection.state == "corrupt":
        return "bold red", f"Corrupt: clusters refuse it (`wrong diff id calculated on extraction`). {again}"
    if inspection.attestations:
        if not command:
            return "yellow", f"It carries attestations. {again}"
        how = "" if "imagetools" in command else " by way of the engine, since this buildx cannot (0.15 and newer can)"
        return "yellow", f"It carries attestations. This publishes the same image without them{how}:"
    what = "An index of images" if manifest.is_index(inspection.media_type) else "One plain manifest"
    if inspection.state == "unverifiable":
        return "yellow", f"{what}, without attestations. Not everything could be verified."
    return "green", f"{what}, without attestations."
