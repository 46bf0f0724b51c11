"""Prints the doctor's checks: on a terminal as a table with colours, elsewhere as lines that are not wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from prefect_docker_attest.doctor.check import STATUSES, Status
from prefect_docker_attest.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rich.console import Console
    from typing_extensions import Self

    from prefect_docker_attest.doctor.check import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "magenta", "skipped": "dim"}

_COUNTED: dict[Status, str] = {"problem": "problems", "warning": "warnings", "unknown": "not checked"}

_GAP = 2  # blanks between columns


class Report:
    """Shows the doctor's checks. On a terminal, each is shown when it is done, with a spinner for those that run.

    Args:
        console: console to print to
        statuses: statuses of the checks to show, and to count
    """

    def __init__(self, console: Console, statuses: Collection[Status] = STATUSES) -> None:
        self._console = console
        self._statuses = statuses
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
            self._live.update(self.table(findings))

    def conclude(self, findings: Mapping[str, Finding]) -> None:
        """Show the number of problems and warnings. If the output is not a terminal, show the checks before."""
        shown = {name: finding for name, finding in findings.items() if finding.status in self._statuses}
        if not self._live:
            self._print_lines(shown)
        self._print_summary([finding.status for finding in shown.values()])

    def _print_summary(self, statuses: Sequence[Status]) -> None:
        counts = [f"{title}: {statuses.count(status)}" for status, title in _COUNTED.items() if status in statuses]
        if counts or "ok" in self._statuses:
            worst = next((status for status in _COUNTED if status in statuses), "ok")
            self._console.print(Text(f"\n{', '.join(counts) or 'No problems found'}", _STYLES[worst]))

    def table(self, findings: Mapping[str, Finding | None]) -> Table:
        """Make a table with one row for each check. Its advice is below its finding."""
        table = Table.grid(padding=(0, _GAP, 0, 0))
        for name, finding in findings.items():
            if finding is None:
                table.add_row(self._spinner, Text(name, "dim"), "")
            elif finding.status in self._statuses:
                first, *advice = _lines(finding)
                found = Text(first, "dim" if finding.status == "skipped" else "")
                for line in advice:
                    found.append(f"\n{line}", "cyan")
                table.add_row(Text(finding.status, _STYLES[finding.status]), Text(name, "bold"), found)
        return table

    def _print_lines(self, findings: Mapping[str, Finding]) -> None:
        """Print the table without colours, and without line breaks for the width of a terminal."""
        first, second = (_GAP + max(map(len, names), default=0) for names in (STATUSES, findings))
        for name, finding in findings.items():
            for row, text in enumerate(_lines(finding)):
                status, title = (finding.status, name) if row == 0 else ("", "")
                indented = text.replace("\n", f"\n{'':{first + second}}")
                self._console.print(Text(f"{status:{first}}{title:{second}}{indented}"), soft_wrap=True)


def _lines(finding: Finding) -> list[str]:
    """Return what was found, and the advice. Each can have several lines."""
    found = printable(finding.found, lines=True)
    return [found, f"-> {printable(finding.advice, lines=True)}"] if finding.advice else [found]
