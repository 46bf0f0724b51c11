"""The help of each command, and the completion of shells."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from prefect_docker_attest.cli import main
from support.shipped import COMMAND

if TYPE_CHECKING:
    from support.shipped import Run

COMMANDS_PAGE = Path(__file__).parents[2] / "docs/commands.md"


@pytest.mark.parametrize("command", [None, *main.commands])
def test_it_has_examples_that_can_be_run_and_a_link(run: Run, command: str | None) -> None:
    done = run(*filter(None, [command]), "--help")
    assert (done.code, done.err) == (0, "")
    examples = re.findall(r"^    prefect-docker-attest (.*)$", done.out, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        name, *arguments = shlex.split(example.partition(" > ")[0], comments=True)
        assert command in (None, name)
        assert main.commands[name].make_context(name, arguments)  # click.UsageError if an option does not exist
    assert re.search(r"^    https://\S+$", done.out, re.MULTILINE)
    assert max(map(len, done.out.splitlines())) <= 80


def test_the_summaries_of_the_commands_are_not_cut(run: Run) -> None:
    summaries = run("--help").out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(summaries) == len(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in summaries)


def test_a_wrong_example_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        main.commands["doctor"].make_context("doctor", ["--no-such-option"])


def test_the_short_form_of_version(run: Run) -> None:
    assert run("-V").out.startswith("prefect-docker-attest ")


def _completion(shell: str) -> str:
    """The line that docs/commands.md has for a shell."""
    section = COMMANDS_PAGE.read_text(encoding="utf-8").partition("## Completion\n")[2]
    line = re.search(rf"^\| {shell} \| `[^`]+` \| `([^`]+)` \|$", section, re.MULTILINE)
    assert line
    return line[1]


def _bash(script: str) -> str:
    environment = {"PATH": f"{Path(COMMAND).parent}:/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_documented_line_completes_commands_in_bash() -> None:
    script = (
        f"{_completion('bash')}\nCOMP_WORDS=(prefect-docker-attest ins) COMP_CWORD=1\n"
        '_prefect_docker_attest_completion prefect-docker-attest\necho "${COMPREPLY[@]}"'
    )
    assert _bash(script) == "inspect\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_documented_line_of_another_shell_reads_a_script(shell: str) -> None:
    variable = re.search(rf"_PREFECT_DOCKER_ATTEST_COMPLETE={shell}_source prefect-docker-attest", _completion(shell))
    assert variable
    assert "prefect-docker-attest" in _bash(variable[0])
