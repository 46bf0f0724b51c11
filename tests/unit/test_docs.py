"""The README and the pages of docs/: length, quoted messages, and the keys of `--json`."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from prefect_docker_attest.cli import main
from prefect_docker_attest.doctor.check import Finding
from prefect_docker_attest.doctor.checkup import CHECKS
from prefect_docker_attest.images.result import Attestation, Image, Inspection, Layer, Programs
from prefect_docker_attest.images.stripping import Stripped
from support.messages import messages

ROOT = Path(__file__).parents[2]
COMMANDS = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_fix_is_in_the_first_30_lines_of_the_readme() -> None:
    beginning = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30])
    needed = (
        "wrong diff id calculated on extraction",
        "The image manifest, config or layer media type for the source image ... is not supported",
        "pip install prefect-docker-attest",
        "export PREFECT_DOCKER_DISABLE_ATTESTATIONS=true",
        "prefect-docker-attest doctor",
        "prefect-docker-attest inspect --verify-layers",
        "built and pushed again",
    )
    assert [text for text in needed if text not in beginning] == []


def _quoted(title: str) -> list[str]:
    """The texts in the first column of a table of docs/troubleshooting.md."""
    section = TROUBLESHOOTING.partition(f"## {title}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert len(cells) == sum(line.startswith("| `") for line in section.splitlines())
    # Two backticks and a space delimit a text that itself has backticks.
    return [re.sub(r"^`` ?|^`| ?``$|`$", "", cell) for cell in cells]


@pytest.mark.parametrize(
    "title", ["Errors of this package", "Warnings of this package", "Errors of `inspect`", "Errors of `strip`"]
)
def test_the_package_can_show_each_quoted_message(title: str) -> None:
    texts, known = _quoted(title), messages()
    assert texts
    assert [text for text in texts if not any(text in message for message in known)] == []


def test_messages_of_other_programs_are_quoted_in_a_table_of_their_own() -> None:
    known = messages()
    others = set(_quoted("Errors of platforms, Docker and Prefect"))
    # The package mentions these, or looks for them.
    mentioned = {"wrong diff id calculated on extraction", "exec format error", "unknown/unknown"}
    assert {text for text in others if any(text in message for message in known)} <= mentioned


@pytest.mark.parametrize("entry", [Finding, Inspection, Image, Layer, Programs, Attestation, Stripped])
def test_each_key_of_json_is_documented(entry: type) -> None:
    documented = {name for code in re.findall(r"`([\w.\[\]]+)`", COMMANDS) for name in code.split(".")}
    assert {field.name for field in fields(entry)} <= documented


def test_each_option_of_the_command_is_documented() -> None:
    commands = [main, *main.commands.values()]
    options = [option for command in commands for parameter in command.params for option in parameter.opts]
    documented = re.findall(r"`(?:prefect-docker-attest )?(--[\w-]+)", COMMANDS)
    assert [option for option in options if option.startswith("--") and option not in documented] == []


def test_each_check_of_the_doctor_is_documented() -> None:
    assert [name for name in CHECKS if f"`{name}`" not in COMMANDS] == []
