"""No value becomes a flag: each value stays one argument of the command line, or is refused by name."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import build_args, docker_py_options, values
from prefect_docker_attest.options.table import ROWS, arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Characters with a meaning in command lines, shells, CSV and UTF-8. \udc80 is a byte in the name of a file.
STUMBLING_BLOCKS = [
    "-", "--", "--help", "-f", "--push", "=", ",", " ", "'", '"', "\n", "\r", "\t", "\0", "\x1b[2J", "\\", "/", "..",
    ":", "$(id)", "`id`", ";", "&&", "|", "*", "~", "%s", "{0}", "é", "\u202e", "😀", "\ud800", "\udc80", "id=",
]  # fmt: skip
CHARACTERS = st.text(st.characters(exclude_categories=[]), max_size=3)
NASTY = st.one_of(
    st.lists(st.sampled_from(STUMBLING_BLOCKS) | CHARACTERS, max_size=6).map("".join),
    st.sampled_from(["busybox", "linux/amd64", "host:127.0.0.1", "id=a,env=B", "none"]),
)
NAMES_AND_VALUES = st.dictionaries(NASTY, NASTY, max_size=4)
NO_TEXT = st.sampled_from([1, 1.5, True, b"bytes", [], [None], {1: 2}, {"a": None}, object()])

Argument = tuple[str, str]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("contexts"))
        yield Path.cwd()


def command_line(**given: Any) -> tuple[list[Argument], str]:
    """Parse the arguments like buildx: return the flags with their values, and the context."""
    call = docker_py_options.docker_py_request({"path": ".", **given})
    if call.stdin:
        call.stdin.close()
    prepared = build_args.prepare(call.options.build_args, {})
    argv = arguments(call.options, prepared.flags, "/metadata.json")
    assert all(b"\0" not in os.fsencode(argument) for argument in argv)
    assert argv.index("--") == len(argv) - 2
    flags = [re.fullmatch(r"--([a-z-]+)(?:=(.*))?", argument, re.DOTALL) for argument in argv[:-2]]
    assert all(flags)
    found = [(flag[1], flag[2] or "") for flag in flags if flag]
    assert found[:3] == [("progress", "plain"), ("load", ""), ("metadata-file", "/metadata.json")]
    return found[3:], argv[-1]


def each(flag: str, value: object) -> list[Argument]:
    return [(flag, str(entry)) for entry in (value if isinstance(value, (list, tuple)) else [value])]


def unless_empty(flag: str, value: str) -> list[Argument]:
    return each(flag, value) if value else []


def equations(flag: str, value: Mapping[str, str]) -> list[Argument]:
    return [(flag, f"{name}={entry}") for name, entry in value.items()]


def platforms(flag: str, value: str | list[str]) -> list[Argument]:
    named = ",".join(value if isinstance(value, list) else [value]).split(",")
    return each(flag, list(dict.fromkeys(platform.strip() for platform in named if platform.strip())))


def bare(flag: str, value: Mapping[str, str]) -> list[Argument]:
    reserved = build_args.is_reserved
    return [(flag, f"{name}={entry}" if reserved(name) else name) for name, entry in value.items()]


def network(flag: str, value: str) -> list[Argument]:
    return [] if value in ("", "default", "bridge") else each(flag, value)


ONE_OR_MORE = NASTY | st.lists(NASTY, max_size=3)
# For each converter of the table: possible values, and the expected values on the command line.
CONVERTERS: dict[Any, tuple[st.SearchStrategy[Any], Callable[[str, Any], list[Argument]]]] = {
    values.strings: (ONE_OR_MORE, each),
    values.optional_string: (NASTY, unless_empty),
    values.builder: (NASTY, unless_empty),
    values.string_map: (NAMES_AND_VALUES, equations),
    values.build_args: (NAMES_AND_VALUES, bare),
    values.platforms: (ONE_OR_MORE, platforms),
    values.network: (NASTY, network),
    values.hosts: (st.lists(NASTY, max_size=3), each),
    values.secrets: (ONE_OR_MORE, each),
    values.key_values: (ONE_OR_MORE, each),
    values.attestation: (NASTY, each),
}
# Numbers, switches and names of formats have no free text. Dockerfiles are tested below.
ONE_VALUE = (values.size, values.switch, values.media_types, values.compression, values.absolute_path)
# For each option: its flag, and both columns of the table above.
OPTIONS: dict[str, tuple[str, st.SearchStrategy[Any], Callable[[str, Any], list[Argument]]]] = {
    **{
        row.docker_py or row.name: (row.flag.removeprefix("--"), *CONVERTERS[row.convert])
        for row in ROWS
        if row.convert not in ONE_VALUE
    },
    "tag": ("tag", NASTY, each),
    "platform": ("platform", NASTY, platforms),
}


def as_buildx_reads(found: list[Argument]) -> list[Argument]:
    """Read the first CSV record like Go, which buildx uses. A line end in quotes becomes a newline."""
    decoded = []
    for flag, value in found:
        if flag == "add-host":
            records = list(csv.reader([value], strict=True))
            assert len(records) == len(records[0]) == 1
            decoded.append((flag, records[0][0]))
        else:
            decoded.append((flag, value))
    return decoded


def is_clear(error: Exception, option: str) -> bool:
    # Messages are shown on terminals and in logs, so they must not contain line breaks and control characters.
    message = str(error)
    message.encode()
    return isinstance(error, OptionError) and message.startswith(option) and message.replace("\n", "").isprintable()


@pytest.mark.parametrize("option", OPTIONS)
@settings(deadline=None, database=None)
@given(data=st.data())
def test_a_value_stays_one_argument_or_is_refused_by_name(option: str, data: st.DataObject) -> None:
    flag, strategy, expected = OPTIONS[option]
    value = data.draw(strategy)
    try:
        found, context = command_line(**{option: value})
    except OptionError as error:
        assert is_clear(error, option)  # noqa: PT017 either of two ends is right
    else:
        assert as_buildx_reads(found) == expected(flag, value)
        assert context == str(Path.cwd())


@pytest.mark.parametrize("option", OPTIONS)
@settings(deadline=None, database=None, max_examples=20)
@given(value=NO_TEXT)
def test_a_value_that_is_not_a_string_is_converted_or_refused_by_name(option: str, value: object) -> None:
    try:
        found, _ = command_line(**{option: value})
    except OptionError as error:
        assert is_clear(error, option)  # noqa: PT017
    else:
        switches = option in ("provenance", "sbom") and value in (1, True)
        # buildx itself reports unknown attributes.
        assert not found or switches or isinstance(value, dict)


@settings(deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.just("x=y") | st.just({"x": "y"}), min_size=2), st.data())
def test_options_do_not_affect_each_other(chosen: dict[str, object], data: st.DataObject) -> None:
    given = {}
    for option in chosen:
        value = data.draw(OPTIONS[option][1])
        try:
            command_line(**{option: value})
        except OptionError:
            continue
        given[option] = value
    found, _ = command_line(**given)
    expected = [
        argument
        for option, value in given.items()
        for flag, _, arguments_of in [OPTIONS[option]]
        for argument in arguments_of(flag, value)
    ]
    # Two options set platforms, and their values are merged.
    others = [argument for argument in as_buildx_reads(found) if argument[0] != "platform"]
    assert sorted(others) == sorted(argument for argument in expected if argument[0] != "platform")
    assert {value for flag, value in found if flag == "platform"} == {
        value for flag, value in expected if flag == "platform"
    }


@settings(deadline=None, database=None)
@given(st.dictionaries(NASTY, NASTY | st.booleans() | st.integers(), min_size=1, max_size=4))
def test_attributes_given_as_a_mapping_are_the_fields_that_buildx_reads(value: dict[str, object]) -> None:
    try:
        found, _ = command_line(cache_to=value)
    except OptionError as error:
        assert is_clear(error, "cache_to")  # noqa: PT017
        return
    ((flag, written),) = found
    assert flag == "cache-to"
    (fields,) = csv.reader(io.StringIO(written, newline=""), strict=True)
    spelled = {name: str(entry).lower() if isinstance(entry, bool) else str(entry) for name, entry in value.items()}
    assert fields == [f"{name}={entry}" for name, entry in spelled.items()]


@settings(deadline=None, database=None)
@given(NASTY)
def test_a_dockerfile_is_a_file_in_the_context_or_comes_on_standard_input(dockerfile: str) -> None:
    try:
        found, _ = command_line(dockerfile=dockerfile)
    except OptionError as error:
        assert is_clear(error, "dockerfile")  # noqa: PT017
    except OSError as error:
        # docker-py opens a Dockerfile outside the context at this point, with the same error.
        assert ".." in dockerfile or "/" in dockerfile or len(dockerfile) > 200
        assert error.errno  # noqa: PT017
    else:
        inside = os.path.normpath(os.path.join(os.getcwd(), dockerfile))
        assert found in ([], [("file", inside)], [("file", "-")])
        assert found or not dockerfile


@settings(deadline=None, database=None)
@given(NASTY.filter(lambda name: "/" not in name and "\0" not in name and name not in ("", ".", "..")))
def test_a_folder_of_any_name_is_the_context(name: str) -> None:
    try:
        Path(name).mkdir(exist_ok=True)
    except (UnicodeEncodeError, OSError):
        return  # the system does not allow this name
    for path in (name, f"./{name}", os.path.abspath(name)):
        found, context = command_line(path=path, dockerfile="Dockerfile")
        assert context == os.path.join(os.getcwd(), name)
        assert found == [("file", os.path.join(context, "Dockerfile"))]


@settings(deadline=None, database=None)
@given(NASTY)
def test_a_path_that_is_not_a_folder_is_refused_like_in_docker_py(name: str) -> None:
    if name.startswith(("http://", "https://", "git://", "github.com/", "git@")) or os.path.isdir(
        name.replace("\0", "")
    ):
        return
    with pytest.raises(
        (TypeError, OptionError), match=r"directory to build in path|path=.*not allowed on a command line"
    ):
        command_line(path=name)


@pytest.mark.parametrize("scheme", ["http://", "https://", "git://", "github.com/", "git@"])
@settings(deadline=None, database=None, max_examples=30)
@given(rest=NASTY)
def test_a_remote_context_is_one_value(scheme: str, rest: str) -> None:
    try:
        _, context = command_line(path=scheme + rest)
    except OptionError as error:
        assert is_clear(error, "path")  # noqa: PT017
    else:
        assert context == scheme + rest


@pytest.mark.parametrize("option", ["buildargs", "secrets"])
@settings(deadline=None, database=None, max_examples=50)
@given(data=st.data())
def test_a_refusal_does_not_contain_values_that_can_be_secrets(option: str, data: st.DataObject) -> None:
    hidden = "hunter2" + data.draw(NASTY)
    forms = [
        {"NAME": hidden},
        {"": hidden},
        {"NAME": [hidden]},
        {"NAME": hidden.encode("utf-8", "replace")},
        hidden,
        [hidden],
    ]
    value = data.draw(st.sampled_from([*forms, hidden.encode("utf-8", "replace"), {"id": "x", "value": hidden}]))
    try:
        found, _ = command_line(**{option: value})
    except OptionError as error:
        assert "hunter2" not in str(error)  # noqa: PT017
    else:
        assert "hunter2" not in str(found)
