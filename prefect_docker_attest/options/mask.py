"""Hides values of build arguments in the output of a build. Pure."""

from __future__ import annotations

import base64
import io
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from prefect_docker_attest.options.build_args import PASSWORD_IN_ADDRESS, is_credential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# BuildKit names a step by its instruction with the values of build arguments, which can contain line breaks. If the
# step fails, BuildKit repeats the name and the end of the step's output. The next line starts with "#" or "------".
_STEP = re.compile(r"(?:#\d+| >) \[")
_NOT_A_STEP = re.compile(r"#|------|\s*$")
_IN_EVERY_STEP = " ["
# What stands before a line of a step's output, and before a line that BuildKit repeats when the step has failed.
_BEFORE_OUTPUT = re.compile(r"(?:(?:#\d+ )?\d+\.\d+ )?")

_SHORTEST = 6  # characters. Shorter values occur by chance in any text, and are too short to be secrets.
_SHORTEST_HALF = 8  # characters

# Control sequences of terminals, such as those for colours, and the beginning of one at the end of a text.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CONTROL_BEGINS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?\Z")


class Mask:
    """Replaces values of build arguments with ``$NAME`` in the output of a build.

    In the names of steps it replaces all values. In other lines it replaces only values that look like credentials:
    the name suggests it, or the value is an address with a password. It also finds these in URLs, in JSON and in
    Base64, and with colour codes inside. The engine reads a step's standard output and standard error in parts, so
    the one can come between the two parts of a value on the other: it finds the longer part of a value, too.

    Args:
        build_args: values by name
    """

    def __init__(self, build_args: Mapping[str, str]) -> None:
        credentials = {name: value for name, value in build_args.items() if is_credential(name, value)}
        encoded = _named(credentials, _encoded)
        secret = _named(credentials, _parts)
        self._secret = _Values(secret, encoded, secret)
        self._all = _Values(_named(build_args, _parts), encoded, secret)
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
            yield self._values.replaced(held, is_start=False)

    def _masked(self, text: str) -> tuple[str, str]:
        """Return a text with the values replaced, and what is held back of it."""
        # A test of the whole block is much faster than one of each line, and that for a text faster than a pattern's.
        no_step = self._values is self._secret and (_IN_EVERY_STEP not in text or not _STEP.search(text))
        if no_step and self._line_starts and text.endswith("\n") and not self._secret.can_be_in(text):
            return text, ""
        shown, held = [], ""
        for line in io.StringIO(text, newline="\n"):
            starts = self._line_starts
            is_cut = starts and self._enter(line)
            self._line_starts = line.endswith("\n")
            if self._line_starts:
                shown.append(self._values.replaced(line, is_start=starts, is_cut=is_cut))
            else:
                begun, held = self._values.divided(line, is_start=starts)
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
        divisible: values of which a half is replaced, too
    """

    def __init__(self, names: Mapping[str, str], encoded: Mapping[str, str], divisible: Iterable[str]) -> None:
        self._names = {**names, **encoded, **names}  # values come first
        middles = {value: _middle(value) for value in divisible}
        self._middles = {value: middle for value, middle in middles.items() if middle}
        # Half of a value is replaced at the end of a line. A shorter beginning, such as "github", can be any word.
        self._starts = {form: form for form in encoded} | {
            value: value[: self._middles.get(value) or max(_SHORTEST, (len(value) + 1) // 2)] for value in names
        }
        self._rests = {value: value[middle:] for value, middle in self._middles.items()}
        self._signs = (*self._starts.values(), *self._rests.values())

    def __bool__(self) -> bool:
        return bool(self._names)

    @cached_property
    def _replaced(self) -> dict[str, str]:
        """Values by the texts that are replaced: the values, and beginnings of those that can be divided."""
        return {self._starts[value]: value for value in self._middles} | {value: value for value in self._names}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # The longest text is first, because a value can contain another value, and begins with its beginning.
        return re.compile("|".join(map(re.escape, sorted(self._replaced, key=len, reverse=True))))

    def can_be_in(self, text: str) -> bool:
        """Whether a value, or half of one, can be in a text."""
        text = _without_controls(text)
        return any(part in text for part in self._signs)

    def replaced(self, line: str, *, is_start: bool = True, is_cut: bool = False) -> str:
        """Return a complete line with the values replaced, also with a value of which the end is not there yet.

        If two steps print at the same time, BuildKit shows the beginning of a line when it shows the other step.

        Args:
            line: the line, or its end
            is_start: whether the line is there from its start
            is_cut: whether the beginning of the line, and so of a value, can be missing
        """
        if is_cut:
            line = self._without_rest(line, {**self._starts, **self._rests})
        if not self.can_be_in(line):
            return line
        plain = _without_controls(line)
        if is_start:
            plain = self._without_rest(plain, self._rests)
        body = plain.rstrip("\r\n")
        start, value = self._unfinished(body)
        if value and body[start:] not in self._names and body[start:].startswith(self._starts[value]):
            plain = body[:start] + self._names[value] + plain[len(body) :]
        return self._substituted(plain)

    def divided(self, text: str, *, is_start: bool) -> tuple[str, str]:
        """Return a piece of a line with the values replaced, and its end if that can be the beginning of a value."""
        if not self:
            return text, ""
        text = _without_controls(text)
        control = _CONTROL_BEGINS.search(text)
        end = control.start() if control else len(text)
        if not self.can_be_in(text):
            start, _ = self._tail(text[:end])
            return text[:start], text[start:]
        if is_start:
            shown = self._without_rest(text[:end], self._rests)
            text, end = shown + text[end:], len(shown)
        start, _ = self._unfinished(text[:end])
        return self._substituted(text[:start]), text[start:]

    def _unfinished(self, text: str) -> tuple[int, str]:
        """Return the same as `_tail`, but after what is replaced, whose end can be the beginning of another value."""
        start, value = self._tail(text)
        for begin, end, _ in self._found(text):
            if begin >= start:
                break
            if end > start:
                start, value = self._tail(text, end)
        return start, value

    def _substituted(self, text: str) -> str:
        shown, position = [], 0
        for start, end, value in self._found(text):
            shown += [text[position:start], self._names[value]]
            position = end
        return "".join([*shown, text[position:]])

    def _found(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where values, or enough of their beginnings, start and end in a text."""
        end = 0
        while match := self._pattern.search(text, end):
            start = match.start()
            value = part = self._replaced[match[0]]
            while not text.startswith(part, start):
                part = part[:-1]
            end = start + len(part)
            yield start, end, value

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

    def _without_rest(self, line: str, shortest: Mapping[str, str]) -> str:
        """Return a line with the value replaced whose rest it starts with.

        Args:
            line: the line
            shortest: texts by values. A rest of the value is replaced if it is at least as long as the text
        """
        match = _BEFORE_OUTPUT.match(line)
        begin = match.end() if match else 0
        for value, text in shortest.items():
            start = line[begin : begin + len(text)]
            index = value.find(start, 1) if len(line) - begin >= len(text) else -1
            while index > 0 and not line.startswith(value[index:], begin):
                index = value.find(start, index + 1)
            if index > 0:
                return line[:begin] + self._names[value] + line[begin + len(value) - index :]
        return line


def _middle(value: str) -> int:
    """Return where to divide a credential into two halves that stand for it, because they are in no other text.

    Returns:
        an index; 0 if a half can be in another text
    """
    if address := PASSWORD_IN_ADDRESS.search(value):
        start, end = address.span("password")
        return (start + end + 1) // 2
    middle = (len(value) + 1) // 2
    return middle if _is_peculiar(value[:middle]) and _is_peculiar(value[middle:]) else 0


def _is_peculiar(text: str) -> bool:
    return len(text) >= _SHORTEST_HALF and any(map(str.isdecimal, text)) and any(map(str.isalpha, text))


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
