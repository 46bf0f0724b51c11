"""No value becomes a flag: whatever is given, it stays in its place on the command line, or is refused by name."""

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

from prefect_docker_attest import build_args, docker_py_options
from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# What readers of command lines, shells, CSV and UTF-8 stumble over; \udc80 is a byte in the name of a file.
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
    """What buildx's parser makes of the arguments: the flags with their values, and the context."""
    call = docker_py_options.read({"path": ".", **given})
    if call.stdin:
        call.stdin.close()
    prepared = build_args.prepare(call.options.build_args, {})
    argv = arguments(call.options, prepared.flags, "/metadata.json")
    assert all(b"\0" not in os.fsencode(one) for one in argv)
    assert argv.index("--") == len(argv) - 2
    flags = [re.fullmatch(r"--([a-z-]+)(?:=(.*))?", one, re.DOTALL) for one in argv[:-2]]
    assert all(flags)
    found = [(flag[1], flag[2] or "") for flag in flags if flag]
    assert found[:3] == [("progress", "plain"), ("load", ""), ("metadata-file", "/metadata.json")]
    return found[3:], argv[-1]


def each(flag: str, values: object) -> list[Argument]:
    return [(flag, str(value)) for value in (values if isinstance(values, (list, tuple)) else [values])]


def unless_empty(flag: str) -> Callable[[str], list[Argument]]:
    return lambda value: each(flag, value) if value else []


def equations(flag: str) -> Callable[[Mapping[str, str]], list[Argument]]:
    return lambda value: [(flag, f"{name}={one}") for name, one in value.items()]


def platforms(value: str | list[str]) -> list[Argument]:
    named = ",".join(value if isinstance(value, list) else [value]).split(",")
    return each("platform", list(dict.fromkeys(one.strip() for one in named if one.strip())))


def bare(value: Mapping[str, str]) -> list[Argument]:
    reserved = build_args.is_reserved
    return [("build-arg", f"{name}={one}" if reserved(name) else name) for name, one in value.items()]


ONE_OR_MORE = NASTY | st.lists(NASTY, max_size=3)
# For each option what may be given, and what must then stand on the command line.
OPTIONS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], list[Argument]]]] = {
    "tag": (NASTY, lambda value: each("tag", value)),
    "target": (NASTY, unless_empty("target")),
    "builder": (NASTY, unless_empty("builder")),
    "labels": (NAMES_AND_VALUES, equations("label")),
    "buildargs": (NAMES_AND_VALUES, bare),
    "build_contexts": (NAMES_AND_VALUES, equations("build-context")),
    "platform": (NASTY, platforms),
    "platforms": (ONE_OR_MORE, platforms),
    "network_mode": (NASTY, lambda value: [] if value in ("", "default", "bridge") else each("network", value)),
    "extra_hosts": (st.lists(NASTY, max_size=3), lambda value: each("add-host", value)),
    "secrets": (ONE_OR_MORE, lambda value: each("secret", value)),
    "ssh": (ONE_OR_MORE, lambda value: each("ssh", value)),
    "attest": (ONE_OR_MORE, lambda value: each("attest", value)),
    "annotations": (ONE_OR_MORE, lambda value: each("annotation", value)),
    "cache_from": (ONE_OR_MORE, lambda value: each("cache-from", value)),
    "cache_to": (ONE_OR_MORE, lambda value: each("cache-to", value)),
    "provenance": (NASTY, lambda value: each("provenance", value)),
    "sbom": (NASTY, lambda value: each("sbom", value)),
}


def as_buildx_reads(found: list[Argument]) -> list[Argument]:
    """Go's reader of CSV, where buildx uses one: the first record, with a line end in quotes as a newline."""
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
    # Shown on terminals and in logs: in one piece, and free of what moves a cursor.
    said = str(error)
    said.encode()
    return isinstance(error, OptionError) and said.startswith(option) and said.replace("\n", "").isprintable()


@pytest.mark.parametrize("option", OPTIONS)
@settings(deadline=None, database=None)
@given(data=st.data())
def test_a_value_stays_in_its_place_or_is_refused_by_name(option: str, data: st.DataObject) -> None:
    values, expected = OPTIONS[option]
    value = data.draw(values)
    try:
        found, context = command_line(**{option: value})
    except OptionError as error:
        assert is_clear(error, option)  # noqa: PT017 either of two ends is right
    else:
        assert as_buildx_reads(found) == expected(value)
        assert context == str(Path.cwd())


@pytest.mark.parametrize("option", OPTIONS)
@settings(deadline=None, database=None, max_examples=20)
@given(value=NO_TEXT)
def test_what_is_no_text_is_refused_by_name_or_read_as_a_text_that_stands_for_it(option: str, value: object) -> None:
    try:
        found, _ = command_line(**{option: value})
    except OptionError as error:
        assert is_clear(error, option)  # noqa: PT017
    else:
        switches = option in ("provenance", "sbom") and value in (1, True)
        # buildx itself says what it thinks of an attribute without a meaning.
        assert not found or switches or isinstance(value, dict)


@settings(deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.just("x=y") | st.just({"x": "y"}), min_size=2), st.data())
def test_options_do_not_meddle_with_each_other(chosen: dict[str, object], data: st.DataObject) -> None:
    given = {}
    for option in chosen:
        value = data.draw(OPTIONS[option][0])
        try:
            command_line(**{option: value})
        except OptionError:
            continue
        given[option] = value
    found, _ = command_line(**given)
    expected = [one for option, value in given.items() for one in OPTIONS[option][1](value)]
    # Platforms have two names, and are merged.
    others = [one for one in as_buildx_reads(found) if one[0] != "platform"]
    assert sorted(others) == sorted(one for one in expected if one[0] != "platform")
    assert {one for one in found if one[0] == "platform"} == {one for one in expected if one[0] == "platform"}


@settings(deadline=None, database=None)
@given(st.dictionaries(NASTY, NASTY | st.booleans() | st.integers(), min_size=1, max_size=4))
def test_attributes_given_as_a_mapping_are_the_fields_that_buildx_reads(value: dict[str, object]) -> None:
    try:
        found, _ = command_line(cache_to=value)
    except OptionError as error:
        assert is_clear(error, "cache_to")  # noqa: PT017
        return
    ((flag, said),) = found
    assert flag == "cache-to"
    (fields,) = csv.reader(io.StringIO(said, newline=""), strict=True)
    spelled = {name: str(one).lower() if isinstance(one, bool) else str(one) for name, one in value.items()}
    assert fields == [f"{name}={one}" for name, one in spelled.items()]


@settings(deadline=None, database=None)
@given(NASTY)
def test_a_dockerfile_is_a_file_in_the_context_or_comes_on_standard_input(dockerfile: str) -> None:
    try:
        found, _ = command_line(dockerfile=dockerfile)
    except OptionError as error:
        assert is_clear(error, "dockerfile")  # noqa: PT017
    except OSError as error:
        # docker-py opens one outside the context at this point, and says the same.
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
        return  # the system knows no such name
    for path in (name, f"./{name}", os.path.abspath(name)):
        found, context = command_line(path=path, dockerfile="Dockerfile")
        assert context == os.path.join(os.getcwd(), name)
        assert found == [("file", os.path.join(context, "Dockerfile"))]


@settings(deadline=None, database=None)
@given(NASTY)
def test_a_path_that_is_no_folder_is_refused_as_docker_py_refuses_it(name: str) -> None:
    if name.startswith(("http://", "https://", "git://", "github.com/", "git@")) or os.path.isdir(
        name.replace("\0", "")
    ):
        return
    with pytest.raises((TypeError, OptionError), match=r"directory to build in path|path=.*no command line can"):
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
def test_a_refusal_does_not_tell_what_may_be_a_secret(option: str, data: st.DataObject) -> None:
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
