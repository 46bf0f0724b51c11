"""The text of a failed build: BuildKit's error and advice, nothing that Prefect would misread."""

from __future__ import annotations

import pytest
from prefect.utilities import dockerutils

from prefect_docker_attest.errors import OptionError, failed_output, failure_text

FAILED_RUN = """#6 [2/2] RUN {command}
#6 0.147 {printed}
#6 ERROR: process "/bin/sh -c {command}" did not complete successfully: exit code: 7
------
 > [2/2] RUN {command}:
0.147 {printed}
------
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN {command}
--------------------
ERROR: {prefix}failed to solve: process "/bin/sh -c {command}" did not complete successfully: exit code: 7

View build details: docker-desktop://dashboard/build/default/default/x"""

MISREAD = [
    *getattr(dockerutils, "_TRANSIENT_ERROR_PATTERNS", ("connection reset", "503 Service Unavailable")),
    "denied",
]


def _failed_run(command: str, printed: str = "text", prefix: str = "") -> list[str]:
    return FAILED_RUN.format(command=command, printed=printed, prefix=prefix).splitlines()


@pytest.mark.parametrize("prefix", ["", "failed to build: "], ids=["buildx 0.13", "buildx 0.29"])
def test_a_failed_command_is_named_with_its_step_and_exit_code(prefix: str) -> None:
    assert failure_text(1, _failed_run("pip install x", prefix=prefix), "Dockerfile").splitlines() == [
        f"ERROR: {prefix}failed to solve: "
        'process "/bin/sh -c pip install x" did not complete successfully: exit code: 7',
        "Failed step: [2/2] RUN pip install x",
        "The command returned a non-zero code: 7",
    ]


@pytest.mark.parametrize("words", MISREAD)
def test_what_a_command_prints_is_never_in_the_text(words: str) -> None:
    lines = _failed_run("curl x", printed=f"ERROR: {words}")
    assert words.lower() not in failure_text(1, lines, "Dockerfile").lower()
    assert words in failed_output(lines)


@pytest.mark.parametrize("words", MISREAD)
def test_a_command_that_holds_words_of_transport_failures_is_left_out(words: str) -> None:
    text = failure_text(1, _failed_run(f"echo {words}"), "Dockerfile")
    assert words.lower() not in text.lower()
    assert "did not complete successfully: exit code: 7" in text
    assert "Failed step: [2/2] RUN" in text


@pytest.mark.parametrize("words", [pattern for pattern in MISREAD if pattern != "denied"])
def test_a_failure_of_transport_keeps_the_words_that_prefect_retries_on(words: str) -> None:
    line = f"ERROR: failed to solve: busybox: failed to do request: Head: {words}"
    assert words in failure_text(1, ["#2 ERROR: x", line], "Dockerfile")


def test_without_an_error_line_the_last_words_of_the_cli_are_given() -> None:
    lines = ["unknown flag: --nosuch", "See 'docker buildx build --help'."]
    assert failure_text(125, lines, "Dockerfile") == "unknown flag: --nosuch"


def test_a_command_that_says_nothing_is_told_by_its_exit_code() -> None:
    assert "exit code -9" in failure_text(-9, [], "Dockerfile")


def test_a_program_of_another_processor_brings_the_advice_for_emulation() -> None:
    lines = _failed_run("uname -m", printed="exec /bin/sh: exec format error")
    assert "tonistiigi/binfmt" in failure_text(1, lines, "Dockerfile")


def test_an_option_error_shows_the_value_unless_told_not_to() -> None:
    assert str(OptionError("target", "reason", "a\nb")).startswith(r"target='a\nb' ")
    assert str(OptionError("buildargs", "reason")).startswith("buildargs ")
