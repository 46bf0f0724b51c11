"""Prints the doctor's checks as a table, with colours on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from prefect_docker_attest.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from typing_extensions import Self

    from prefect_docker_attest.doctor.check import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "magenta", "skipped": "dim"}

_COUNTED = {"problem": "problems", "warning": "warnings", "unknown": "not checked"}


class Report:
    """Shows the doctor's checks. On a terminal, each is shown when it is done, with a spinner for those that run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("dots", style="dim")
        self._live = Live(console=console, auto_refresh=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, findings: Mapping[str, Finding | None]) -> None:
        """Show the results so far, by check. A check that still runs is `None`."""
        if self._live:
            self._live.update(self._table(findings))

    def conclude(self, findings: Mapping[str, Finding]) -> None:
        """Show the number of problems and warnings. If the output is not a terminal, show the checks before."""
        if not self._live:
            self._console.print(self._table(findings))
        statuses = [finding.status for finding in findings.values()]
        counts = [f"{title}: {statuses.count(status)}" for status, title in _COUNTED.items() if status in statuses]
        worst = next((status for status in _COUNTED if status in statuses), "ok")
        self._console.print(Text(f"\n{', '.join(counts) or 'No problems found'}", _STYLES[worst]))

    def _table(self, findings: Mapping[str, Finding | None]) -> Table:
        """Make a table with one row for each check. Its advice is below its finding."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, finding in findings.items():
            if finding is None:
                table.add_row(self._spinner, Text(name, "dim"), "")
                continue
            found = Text(printable(finding.found, lines=True), "dim" if finding.status == "skipped" else "")
            if finding.advice:
                found.append(f"\n-> {printable(finding.advice, lines=True)}", "cyan")
            table.add_row(Text(finding.status, _STYLES[finding.status]), Text(name, "bold"), found)
        return table
