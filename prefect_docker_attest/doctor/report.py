"""Prints the doctor's checks as a table, with colours on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from prefect_docker_attest.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from typing_extensions import Self

    from prefect_docker_attest.doctor.check import Check

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


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

    def show(self, checks: Mapping[str, Check | None]) -> None:
        """Show the results so far. A check that still runs is `None`."""
        if self._live:
            self._live.update(self._table(checks))

    def conclude(self, checks: Sequence[Check]) -> None:
        """Show the number of problems and warnings. If the output is not a terminal, show the checks before."""
        if not self._live:
            self._console.print(self._table({check.name: check for check in checks}))
        statuses = [check.status for check in checks]
        counts = [f"{word}s: {statuses.count(word)}" for word in ("problem", "warning") if word in statuses]
        worst = next((word for word in ("problem", "warning") if word in statuses), "ok")
        self._console.print(Text(f"\n{', '.join(counts) or 'No problems found'}", _STYLES[worst]))

    def _table(self, checks: Mapping[str, Check | None]) -> Table:
        """Make a table with one row for each check. Its advice is below its finding."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, check in checks.items():
            if check is None:
                table.add_row(self._spinner, Text(name, "dim"), "")
                continue
            found = Text(printable(check.found, lines=True), "dim" if check.status == "skipped" else "")
            if check.advice:
                found.append(f"\n-> {printable(check.advice, lines=True)}", "cyan")
            table.add_row(Text(check.status, _STYLES[check.status]), Text(name, "bold"), found)
        return table
