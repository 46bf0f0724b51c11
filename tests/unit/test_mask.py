"""Values of build arguments are hidden in the output of a build, however the output arrives."""

from __future__ import annotations

import base64
import itertools
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_docker_attest.buildx.output_pipe import LONGEST_PIECE
from prefect_docker_attest.options.mask import Mask, _Values

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKEN = "s3cr3t/TOKEN+value=42"


def shown(build_args: dict[str, str], blocks: Iterable[str]) -> str:
    return "".join(Mask(build_args).blocks(blocks))


# The output of BuildKit 0.13 and 0.23 for `RUN deploy "$KEY" $VERSION $APP`.
SHOWN = """#6 [2/4] RUN deploy "-----BEGIN KEY-----
c2VjcmV0
-----END KEY-----" 1.2.3 my-application
#6 0.123 deploying my-application 1.2.3
#6 0.124 with c2VjcmV0
#6 ERROR: process "/bin/sh -c deploy \\"$KEY\\" $VERSION $APP" did not complete successfully: exit code: 1
------
 > [2/4] RUN deploy "-----BEGIN KEY-----
c2VjcmV0
-----END KEY-----" 1.2.3 my-application:
0.124 with c2VjcmV0
------
my-application is not in a step, c2VjcmV0 is a secret
"""
BY_NAME = """#6 [2/4] RUN deploy "$KEY
$KEY
$KEY" 1.2.3 $APP
#6 0.123 deploying my-application 1.2.3
#6 0.124 with $KEY
#6 ERROR: process "/bin/sh -c deploy \\"$KEY\\" $VERSION $APP" did not complete successfully: exit code: 1
------
 > [2/4] RUN deploy "$KEY
$KEY
$KEY" 1.2.3 $APP:
0.124 with $KEY
------
my-application is not in a step, $KEY is a secret
"""


def test_output_shows_names_instead_of_values() -> None:
    key = "-----BEGIN KEY-----\r\nc2VjcmV0\n-----END KEY-----"
    build_args = {"KEY": key, "APP": "my-application", "VERSION": "1.2.3"}
    assert shown(build_args, [SHOWN]) == BY_NAME
    assert shown(build_args, SHOWN.splitlines(keepends=True)) == BY_NAME


def test_brackets_in_the_output_of_a_step_do_not_count_as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # Programs such as Maven print them in each line. A test of each line takes six times as long as one of the block.
    tested: list[str] = []
    find = _Values.can_be_in

    def counted(values: _Values, text: str) -> bool:
        tested.append(text)
        return find(values, text)

    monkeypatch.setattr(_Values, "can_be_in", counted)
    block = "#6 0.1 [INFO] compiling\n#6 0.2 test_a PASSED  [ 50%]\n" * 100
    assert shown({"TOKEN": TOKEN}, [block]) == block
    assert tested == [block]


def test_a_value_that_holds_another_is_shown_by_its_own_name() -> None:
    build_args = {"A_TOKEN": "secret", "B_TOKEN": "secret-too"}
    assert shown(build_args, ["#6 0.1 secret-too and secret\n"]) == "#6 0.1 $B_TOKEN and $A_TOKEN\n"
    assert shown(build_args, ["#6 0.1 secret", "-too and secret", "\n"]) == "#6 0.1 $B_TOKEN and $A_TOKEN\n"


def test_an_address_with_a_password_is_a_credential() -> None:
    build_args = {"INDEX": "https://user:password@host/simple", "HOST": "https://host/simple"}
    assert shown(build_args, ["#6 0.1 from https://user:password@host/simple\n"]) == "#6 0.1 from $INDEX\n"
    assert shown(build_args, ["#6 0.1 from https://host/simple\n"]) == "#6 0.1 from https://host/simple\n"


def test_a_value_across_the_pieces_of_a_long_line_is_hidden() -> None:
    for border in range(len(TOKEN) + 1):
        line = "x" * 100 + TOKEN + "y\n"
        assert shown({"TOKEN": TOKEN}, [line[: 100 + border], line[100 + border :]]) == "x" * 100 + "$TOKEN" + "y\n"
        assert shown({"TOKEN": TOKEN}, [line[:100], TOKEN[:border], TOKEN[border:]]) == "x" * 100 + "$TOKEN"


@settings(deadline=None)
@given(
    st.lists(st.text("ab\n", min_size=1), min_size=1),
    st.dictionaries(st.sampled_from(["A_KEY", "B_KEY"]), st.text("ab", min_size=6, max_size=9), min_size=1),
)
def test_the_borders_of_pieces_make_no_difference(pieces: list[str], build_args: dict[str, str]) -> None:
    # A block has complete lines, or a piece of one.
    blocks = [block for piece in pieces for block in piece.splitlines(keepends=True)]
    assert shown(build_args, blocks) == shown(build_args, "".join(blocks).splitlines(keepends=True))


def test_only_what_can_begin_a_value_is_held_back() -> None:
    given = Mask({"TOKEN": TOKEN}).blocks(["#5 0.1 10%\r", "20% s3cr3t", "/TOK", "", "-", "no end s3"])
    assert list(given) == ["#5 0.1 10%\r", "20% ", "", "s3cr3t/TOK-", "no end ", "s3"]


def test_little_is_held_back() -> None:
    parts = list(Mask({"TOKEN": "x" * 1000}).blocks("x" * LONGEST_PIECE for _ in range(10)))
    assert all(len(part) < 1000 for part in parts)
    assert "".join(parts) == "$TOKEN" * 655 + "x" * 360


ADDRESS = "https://user:correcthorse@host.example.com/repository/simple"


@pytest.mark.parametrize("value", [TOKEN, ADDRESS])
@pytest.mark.parametrize("between", ["+ echo too\n", "{value}\n", "progress: 50%"])
@pytest.mark.parametrize("number", ["#6 0.124 ", "0.124 "])
def test_the_longer_part_of_a_value_is_hidden_if_other_output_divides_it(value: str, between: str, number: str) -> None:
    # BuildKit reads 32 KiB of one stream, then the other stream. It puts a number before each line.
    middle = value.index("horse") if "horse" in value else (len(value) + 1) // 2
    for border in range(1, len(value)):
        if border < middle and not between.endswith("\n"):
            continue
        first, rest = value[:border], value[border:]
        text = f"{number}xxx{first}{between.format(value=value)}" + number * between.endswith("\n") + f"{rest} yyy\n"
        for blocks in [text], text.splitlines(keepends=True):
            hidden = shown({"INDEX_KEY": value}, blocks)
            assert (first if border >= middle else rest) not in hidden
            assert value not in hidden
            assert hidden.count("$INDEX_KEY") >= 1
            assert hidden.endswith(" yyy\n")


@pytest.mark.parametrize(
    "line",
    [
        "looking in https://****:****@host.example.com/repository/simple",
        "https://user:****@host.example.com/repository/simple",
        "host.example.com/repository/simple",
        "s3cr3t/TOK is short",
        "value=42 is short",
        "auth.example.com/login is no address with a password",
        "https://auth.example.com/other",
        "my-project-cache-2023",
    ],
)
def test_parts_that_other_texts_contain_are_not_replaced(line: str) -> None:
    build_args = {
        "INDEX": ADDRESS,
        "TOKEN": TOKEN,
        "AUTH_URL": "https://auth.example.com/login",
        "CACHE_KEY": "my-project-cache-2024",
    }
    assert shown(build_args, [f"#6 0.1 {line}\n"]) == f"#6 0.1 {line}\n"


VALUES = st.dictionaries(st.sampled_from(["A_KEY", "B_KEY"]), st.text("a1", min_size=16, max_size=19), min_size=1)


@settings(deadline=None)
@given(VALUES, st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(-19, 19)), max_size=9)), st.data())
def test_the_borders_of_pieces_make_no_difference_to_parts(
    build_args: dict[str, str], lines: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    values = list(build_args.values())

    def part(number: int, length: int) -> str:
        value = values[number % len(values)]
        return value[length:] if length < 0 else value[:length]

    text = "".join("".join(part(*each) for each in line) + "\n" for line in lines)
    # The first piece of a line is longer than a value.
    borders = st.integers(20, 200)
    blocks = []
    for line in text.splitlines(keepends=True):
        drawn = data.draw(st.lists(borders, max_size=3))
        at = sorted({0, len(line), *(border for border in drawn if border < len(line))})
        blocks += [line[start:end] for start, end in itertools.pairwise(at)]
    assert shown(build_args, blocks) == shown(build_args, text.splitlines(keepends=True))


FORMS = {
    "in a URL": quote(TOKEN, safe=""),
    "in the path of a URL": quote(TOKEN),
    "in a form": quote_plus(TOKEN),
    "in JSON": json.dumps(TOKEN)[1:-1],
    "in Base64": base64.b64encode(TOKEN.encode()).decode(),
    "in Base64 with a user": base64.b64encode(f"me:{TOKEN}".encode()).decode(),
    "in Base64 in a longer text": base64.b64encode(f"me:{TOKEN}, with more".encode()).decode(),
    "in Base64 for URLs": base64.urlsafe_b64encode(f"a:{TOKEN}".encode()).decode(),
    "with colours": f"{TOKEN[:7]}\x1b[01;31m\x1b[K{TOKEN[7:]}\x1b[m",
    "cut": TOKEN[:11],
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_a_credential_are_hidden(form: str) -> None:
    line = f"#5 0.1 it is {FORMS[form]}"
    in_line = shown({"TOKEN": TOKEN}, [f"{line}\n"])
    assert in_line.startswith("#5 0.1 it is ")
    assert "$TOKEN" in in_line
    # The rest of Base64 tells at most one character of the value.
    assert len(in_line) < 55
    for border in range(7, len(line)):
        assert shown({"TOKEN": TOKEN}, [line[:border], line[border:], "\n"]) == in_line


def test_special_characters_in_json_are_hidden() -> None:
    value = 'quote " backslash \\ é'
    assert shown({"TOKEN": value}, [f"#5 0.1 {json.dumps(value, ensure_ascii=False)}\n"]) == '#5 0.1 "$TOKEN"\n'


def test_lines_without_a_credential_keep_their_colours() -> None:
    line = "#5 0.1 \x1b[31mred\x1b[0m github\n"
    assert shown({"TOKEN": "github_pat_0123456789"}, [line]) == line


def test_a_value_whose_beginning_is_cut_off_in_an_error_is_hidden() -> None:
    # BuildKit repeats the last 56 KiB that the step has printed.
    lines = [" > [2/2] RUN deploy:\n", f"{TOKEN[8:]} is wrong\n", f"0.2 {TOKEN}\n", "------\n"]
    assert shown({"TOKEN": TOKEN}, ["".join(lines)]) == (" > [2/2] RUN deploy:\n$TOKEN is wrong\n0.2 $TOKEN\n------\n")


def test_names_and_values_of_other_arguments_are_not_replaced_twice() -> None:
    build_args = {"A_KEY": "B_KEY=x", "B_KEY": "A_KEY_"}
    assert shown(build_args, ["#5 0.1 B_KEY=x A_KEY_\n"]) == "#5 0.1 $A_KEY $B_KEY\n"
