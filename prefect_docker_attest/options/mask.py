"""Hides values of build arguments in the output of a build. Pure."""

from __future__ import annotations

import base64
import io
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from prefect_docker_attest.options.build_args import is_credential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# BuildKit names a step by its instruction with the values of build arguments, which can contain line breaks. If the
# step fails, BuildKit repeats the name and the end of the step's output. The next line starts with "#" or "------".
_STEP = re.compile(r"(?:#\d+| >) \[")
_NOT_A_STEP = re.compile(r"#|------|\s*$")
_IN_EVERY_STEP = " ["

_SHORTEST = 6  # characters. Shorter values occur by chance in any text, and are too short to be secrets.

# Control sequences of terminals, such as those for colours, and the beginning of one at the end of a text.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CONTROL_BEGINS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?\Z")


class Mask:
    """Replaces values of build arguments with ``$NAME`` in the output of a build.

    In the names of steps it replaces all values. In other lines it replaces only values that look like credentials:
    the name suggests it, or the value is an address with a password. It also finds these in URLs, in JSON and in
    Base64, and with colour codes inside.

    Args:
        build_args: values by name
    """

    def __init__(self, build_args: Mapping[str, str]) -> None:
        credentials = {name: value for name, value in build_args.items() if is_credential(name, value)}
        encoded = _named(credentials, _encoded)
        self._secret = _Values(_named(credentials, _parts), encoded)
        self._all = _Values(_named(build_args, _parts), encoded)
        self._values = self._secret
        self._line_starts = True

    def blocks(self, blocks: Iterable[str]) -> Iterator[str]:
        """Yield output with the values replaced. Complete lines are yielded immediately.

        Args:
            blocks: the output in blocks: complete lines, or a piece of a long line. The end of such a piece is held
                back while it can be the beginning of a value. An empty block is passed on
        """
        if not self._all:
            yield from blocks
            return
        held = ""
        for block in blocks:
            shown, held = self._masked(held + block) if block else ("", held)
            if shown or not block:
                yield shown
        if held:
            yield self._values.replaced(held)

    def _masked(self, text: str) -> tuple[str, str]:
        """Return a text with the values replaced, and what is held back of it."""
        # A test of the whole block is much faster than one of each line, and that for a text faster than a pattern's.
        no_step = self._values is self._secret and (_IN_EVERY_STEP not in text or not _STEP.search(text))
        if no_step and self._line_starts and text.endswith("\n") and not self._secret.can_be_in(text):
            return text, ""
        shown, held = [], ""
        for line in io.StringIO(text, newline="\n"):
            is_cut = self._line_starts and self._enter(line)
            self._line_starts = line.endswith("\n")
            if self._line_starts:
                shown.append(self._values.replaced(line, is_cut=is_cut))
            else:
                begun, held = self._values.divided(line)
                shown.append(begun)
        return "".join(shown), held

    def _enter(self, line: str) -> bool:
        """Select the values to replace in a line, and return whether it continues the name or output of a step."""
        if _STEP.match(line):
            self._values = self._all
        elif _NOT_A_STEP.match(line):
            self._values = self._secret
        else:
            return self._values is self._all
        return False


class _Values:
    """Texts to replace, with the names that replace them.

    Args:
        names: names by values
        encoded: names by other forms of values
    """

    def __init__(self, names: Mapping[str, str], encoded: Mapping[str, str]) -> None:
        self._names = {**names, **encoded, **names}  # values come first
        # Half of a value is replaced at the end of a line. A shorter beginning, such as "github", can be any word.
        self._starts = {form: form for form in encoded} | {
            value: value[: max(_SHORTEST, (len(value) + 1) // 2)] for value in names
        }

    def __bool__(self) -> bool:
        return bool(self._names)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # The longest value is first, because a value can contain another value.
        return re.compile("|".join(map(re.escape, sorted(self._names, key=len, reverse=True))))

    def can_be_in(self, text: str) -> bool:
        """Whether a value, or half of one, can be in a text."""
        text = _without_controls(text)
        return any(start in text for start in self._starts.values())

    def replaced(self, line: str, *, is_cut: bool = False) -> str:
        """Return a complete line with the values replaced, also with a value of which the end is not there yet.

        If two steps print at the same time, BuildKit shows the beginning of a line when it shows the other step.

        Args:
            line: the line
            is_cut: whether the beginning of the line, and so of a value, can be missing
        """
        if is_cut:
            line = self._without_end_of_value(line)
        if not self.can_be_in(line):
            return line
        plain = _without_controls(line)
        body = plain.rstrip("\r\n")
        start, part = self._unfinished(body)
        if part and body[start:] not in self._names and body[start:].startswith(self._starts[part]):
            plain = body[:start] + self._names[part] + plain[len(body) :]
        return self._substituted(plain)

    def divided(self, text: str) -> tuple[str, str]:
        """Return a piece of a line with the values replaced, and its end if that can be the beginning of a value."""
        if not self:
            return text, ""
        text = _without_controls(text)
        control = _CONTROL_BEGINS.search(text)
        end = control.start() if control else len(text)
        if not self.can_be_in(text):
            start, _ = self._tail(text[:end])
            return text[:start], text[start:]
        start, _ = self._unfinished(text[:end])
        return self._substituted(text[:start]), text[start:]

    def _unfinished(self, text: str) -> tuple[int, str]:
        """Return the same as `_tail`, but after complete values, whose end can be the beginning of another one."""
        start, part = self._tail(text)
        for match in self._pattern.finditer(text):
            if match.start() >= start:
                break
            if match.end() > start:
                start, part = self._tail(text, match.end())
        return start, part

    def _substituted(self, text: str) -> str:
        return self._pattern.sub(lambda match: self._names[match[0]], text)

    def _tail(self, text: str, minimum: int = 0) -> tuple[int, str]:
        """Return where the longest end of a text starts that is the beginning of a value, and that value.

        Args:
            text: the text
            minimum: the index before which no end starts
        """
        first, found = len(text), ""
        for part in self._names:
            start = text.find(part[0], max(minimum, len(text) - len(part) + 1), first)
            while start >= 0 and not part.startswith(text[start:]):
                start = text.find(part[0], start + 1, first)
            if start >= 0:
                first, found = start, part
        return first, found

    def _without_end_of_value(self, line: str) -> str:
        for part, name in self._names.items():
            shortest = len(self._starts[part])
            index = part.find(line[:shortest], 1) if len(line) > shortest else -1
            while index > 0 and not line.startswith(part[index:]):
                index = part.find(line[:shortest], index + 1)
            if index > 0:
                return name + line[len(part) - index :]
        return line


def _without_controls(text: str) -> str:
    return _CONTROL.sub("", text) if "\x1b" in text else text


def _named(build_args: Mapping[str, str], forms: Callable[[str], Iterable[str]]) -> dict[str, str]:
    return {form: f"${name}" for name, value in build_args.items() for form in forms(value)}


def _parts(value: str) -> list[str]:
    return _long(map(str.strip, value.split("\n")))


def _encoded(value: str) -> list[str]:
    """Return the forms in which programs show a value in URLs, in JSON and in Base64."""
    stripped = value.strip()
    forms = [quote(stripped, safe=""), quote_plus(stripped, safe=""), quote(stripped)]
    forms += [json.dumps(part, ensure_ascii=False)[1:-1] for part in _parts(value)]
    for content in {value.encode(errors="replace"), stripped.encode(errors="replace")}:
        # The text before the value, such as `user:`, determines how its bits are distributed over the characters. The
        # first and the last character also contain bits of other text.
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + content).decode()
            form = encoded[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]
            forms += [form, form.translate({ord("+"): "-", ord("/"): "_"})]
    return _long(forms)


def _long(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if len(text) >= _SHORTEST]
