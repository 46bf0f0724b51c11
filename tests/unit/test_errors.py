"""The message of a failed build: BuildKit's error and advice, without words that Prefect searches for."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest
from prefect.utilities import dockerutils

from prefect_docker_attest.build_settings import BuildSettings
from prefect_docker_attest.buildx import docker_cli, explanation_table, explanations
from prefect_docker_attest.buildx.builder import Builder
from prefect_docker_attest.buildx.docker_cli import too_old
from prefect_docker_attest.buildx.evidence import Evidence
from prefect_docker_attest.buildx.explanations import explain, naming_builder, naming_settings
from prefect_docker_attest.errors import BuildFailed, OptionError
from prefect_docker_attest.failures import Failure
from prefect_docker_attest.options import docker_py_options
from prefect_docker_attest.options.table import BuildxOptions

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED_RUN = """#6 [2/2] RUN {command}
#6 0.147 {printed}
#6 ERROR: process "/bin/sh -c {command}" did not complete successfully: exit code: {code}
------
 > [2/2] RUN {command}:
0.147 {printed}
------
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN {command}
--------------------
ERROR: {prefix}failed to solve: process "/bin/sh -c {command}" did not complete successfully: exit code: {code}

View build details: docker-desktop://dashboard/build/default/default/x"""

BUILDER = Builder("default", "docker")

MISREAD = [
    *getattr(dockerutils, "_TRANSIENT_ERROR_PATTERNS", ("connection reset", "503 Service Unavailable")),
    "denied",
]


def _failed_run(command: str, printed: str = "text", prefix: str = "", code: int = 7) -> list[str]:
    return FAILED_RUN.format(command=command, printed=printed, prefix=prefix, code=code).splitlines()


def explained(returncode: int, lines: list[str]) -> Failure:
    return explain(Evidence.of_output(returncode, lines), BuildxOptions(context="-"), BUILDER)


def text_of(returncode: int, lines: list[str]) -> str:
    return str(explained(returncode, lines))


@pytest.mark.parametrize("prefix", ["", "failed to build: "], ids=["buildx 0.13", "buildx 0.29"])
def test_a_failed_command_is_named_with_its_step_and_exit_code(prefix: str) -> None:
    assert text_of(1, _failed_run("pip install x", prefix=prefix)).splitlines() == [
        f"ERROR: {prefix}failed to solve: "
        'process "/bin/sh -c pip install x" did not complete successfully: exit code: 7',
        "Failed step: [2/2] RUN pip install x. The command '/bin/sh -c pip install x' returned a non-zero code: 7",
    ]


@pytest.mark.parametrize("words", MISREAD)
def test_output_of_a_command_is_never_in_the_message(words: str) -> None:
    lines = _failed_run("curl x", printed=f"ERROR: {words}")
    assert words.lower() not in text_of(1, lines).lower()
    assert words in explained(1, lines).output


@pytest.mark.parametrize("words", MISREAD)
def test_a_command_with_words_that_prefect_searches_for_is_left_out(words: str) -> None:
    text = text_of(1, _failed_run(f"echo {words}"))
    assert words.lower() not in text.lower()
    assert "did not complete successfully: exit code: 7" in text
    assert "Failed step: [2/2] RUN" in text
    assert "The command returned a non-zero code: 7" in text


def test_a_command_is_shown_without_buildkits_quoting() -> None:
    lines = _failed_run(r"echo \"a\\\\b\" > /x && exit 7")
    assert """The command '/bin/sh -c echo "a\\\\b" > /x && exit 7' returned""" in text_of(1, lines)


@pytest.mark.parametrize("words", [pattern for pattern in MISREAD if pattern != "denied"])
def test_a_network_error_keeps_the_words_that_prefect_retries_on(words: str) -> None:
    line = f"ERROR: failed to solve: busybox: failed to do request: Head: {words}"
    assert words in text_of(1, ["#2 ERROR: x", line])


def test_without_an_error_line_the_last_lines_of_the_cli_are_shown() -> None:
    lines = ["unknown flag: --nosuch", "See 'docker buildx build --help'."]
    assert text_of(125, lines) == "unknown flag: --nosuch"


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?",
        "ERROR: failed to connect to the docker API at unix:///x.sock; check if the path is correct and if the daemon "
        "is running: dial unix /x.sock: connect: no such file or directory",
    ],
    ids=["Docker 28", "Docker 29"],
)
def test_an_engine_that_cannot_be_reached_is_named(line: str) -> None:
    assert "The docker CLI cannot reach the engine at unix:///x.sock.\nTIP" in text_of(1, [line])


def test_a_killed_command_without_output_is_reported_with_its_signal() -> None:
    assert "killed by signal 9.\nTIP" in text_of(-9, [])


def test_an_exec_format_error_has_a_tip_about_emulation() -> None:
    lines = _failed_run("uname -m", printed="exec /bin/sh: exec format error", code=255)
    assert "tonistiigi/binfmt" in text_of(1, lines)


def test_at_most_three_lines_follow_buildkits_error() -> None:
    lines = _failed_run("uname -m", printed="exec /bin/sh: exec format error", code=255)
    failure = naming_builder(explained(1, lines), Builder("far", "remote"))
    failure = naming_settings(failure, BuildSettings(platform="linux/arm64"))
    assert str(BuildFailed(failure)).splitlines()[1:] == [
        "Failed step: [2/2] RUN uname -m. The command '/bin/sh -c uname -m' returned a non-zero code: 255",
        "The build ran a program for another processor (exec format error). "
        "The builder far (driver remote) is outside this Docker Engine. "
        "The platform linux/arm64 comes from PREFECT_DOCKER_PLATFORM.",
        "TIP Run `docker run --privileged --rm tonistiigi/binfmt --install all`, or use a builder on a machine with "
        "that processor.",
    ]


# The errors of BuildKit 0.13.2 and buildx 0.13.1 at a push. The registry asks for a password, or for a token.
PUSHES = {
    "garbage for a password": (
        [
            "------",
            " > [auth] sharing credentials for 127.0.0.1:5000:",
            "------",
            "ERROR: failed to push 127.0.0.1:5000/app: invalid character 'g' looking for beginning of value",
        ],
        "gives no usable credentials for 127.0.0.1:5000.",
        "TIP Check credsStore, credHelpers and auths in docker's config.json",
    ),
    "garbage for a token": (
        ["ERROR: failed to push 127.0.0.1:5000/app: invalid character 'g' looking for beginning of value"],
        "docker's credential helper, or the registry's token server, did not answer with JSON.",
        "TIP Check credsStore, credHelpers and auths in docker's config.json",
    ),
    "a helper that fails": (
        ["ERROR: failed to push 127.0.0.1:5000/app: error getting credentials - err: exit status 1, out: `locked`"],
        "docker's credential helper failed.",
        "TIP Check credsStore, credHelpers and auths in docker's config.json",
    ),
    "a broken network": (
        ['ERROR: failed to push 127.0.0.1:5000/app: failed to do request: Head "https://127.0.0.1:5000/v2/": EOF'],
        "The builder far (driver remote) is outside this Docker Engine.",
        "TIP Check the network between the builder and the registry, and build again.",
    ),
}


@pytest.mark.parametrize("name", PUSHES)
def test_a_failed_push_of_the_builder_is_explained(name: str) -> None:
    lines, note, tip = PUSHES[name]
    failure = naming_builder(explained(1, lines), Builder("far", "remote"))
    *ours, last = str(naming_settings(failure, BuildSettings(push_from_builder=True))).splitlines()[1:]
    assert note in " ".join(ours)
    assert last.startswith(tip)
    assert len(ours) <= 2


def test_sentences_in_one_line_are_separated() -> None:
    failure = Failure().with_note("Failed step: [auth] sharing credentials").with_note("It failed.").with_note("More.")
    assert str(failure) == "Failed step: [auth] sharing credentials. It failed.\nMore."


@pytest.mark.parametrize("words", MISREAD)
def test_no_sentence_or_tip_contains_words_that_prefect_searches_for(words: str) -> None:
    texts = [text for row in explanation_table.EXPLANATIONS for text in (row.note, row.tip)]
    texts += [explanations._EXEC_FORMAT, explanations._EMULATE, *explanations._ORIGINS.values()]
    texts += [
        docker_cli.INSTALL_BUILDX,
        str(explanations.cannot_start(FileNotFoundError())),
        str(explanations.no_metadata(OSError())),
    ]
    texts += [text for reason, tip in docker_py_options.REFUSED.values() for text in (reason, tip)]
    assert [text for text in texts if words.lower() in text.lower()] == []


@pytest.mark.parametrize(
    ("version", "flags", "expected"),
    [
        ((0, 11, 2), ["--annotation"], "0.11.2. The option annotations needs 0.12.0 or newer."),
        ((0, 9, 1), ["--annotation"], "0.9.1. The option annotations needs 0.12.0 or newer."),
        ((0, 9, 1), ["--provenance"], "0.9.1. prefect-docker-attest needs 0.10.2 or newer."),
        ((0, 10, 1), [], "0.10.1. prefect-docker-attest needs 0.10.2 or newer."),
    ],
    ids=str,
)
def test_the_error_for_an_old_buildx_names_the_required_version(
    version: tuple[int, ...], flags: list[str], expected: str
) -> None:
    assert str(too_old(version, flags)).startswith(f"The buildx plugin is too old: {expected}")


@pytest.mark.parametrize(
    ("version", "flags"),
    [((0, 10, 2), []), ((0, 12, 0), ["--annotation"]), ((0, 11, 2), ["--nosuch"])],
    ids=str,
)
def test_a_new_buildx_causes_no_error(version: tuple[int, ...], flags: list[str]) -> None:
    assert too_old(version, flags) is None


def test_a_dockerignore_that_is_too_long_has_a_tip() -> None:
    line = "ERROR: failed to solve: Internal: header list size to send violates the maximum size (16 MiB) set by server"
    assert ".dockerignore is too long" in text_of(1, [line])


def test_an_option_error_shows_the_value_if_it_is_given() -> None:
    assert str(OptionError("target", "reason", "a\nb")).startswith(r"target='a\nb' ")
    assert str(OptionError("buildargs", "reason")).startswith("buildargs ")


def test_an_option_error_names_its_option_and_reason() -> None:
    error = OptionError("target", "a reason", "a value")
    assert (error.option, error.reason) == ("target", "a reason")


COPIES: dict[str, Callable[[Exception], Exception]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))  # type: ignore[misc]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("made", COPIES)
@pytest.mark.parametrize(
    "error",
    [
        # A generator cannot be pickled.
        OptionError("target", "a reason", (number for number in range(2))),
        OptionError("target", "a reason"),
        BuildFailed(Failure("failed", ("why",), "what to do", "its output")),
    ],
    ids=["with a value", "without", "failed build"],
)
def test_an_error_survives_a_copy(made: str, error: Exception) -> None:
    found = COPIES[made](error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def test_an_error_comes_back_from_a_process_pool() -> None:
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(docker_py_options.docker_py_request, {"path": ".", "ssh": 1})
        error = future.exception(timeout=60)
    assert isinstance(error, OptionError)
    assert str(error).startswith("ssh=1 ")
    assert error.option == "ssh"
