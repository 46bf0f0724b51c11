"""Reads JSON as Go's ``encoding/json`` reads it into a struct, because engines are written in Go. Pure.

Go ignores the case of members' names, and merges members with equal names. Programs in other languages see other
documents, so two such members are reported and not merged.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST_VALUES = 250_000  # values in one document. Python needs up to 230 bytes for each: 60 MB
_SHOWN = 80  # characters of a wrong value that an error message shows
# Letters that are equal to ASCII letters for Go: the long s and the Kelvin sign.
_FOLDED = str.maketrans({"\u017f": "s", "\u212a": "k"})
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT)(\d{1,2}:\d\d:\d\d)(?:[.,]\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
# Only one thread parses a document at a time: several large documents together would need too much memory.
_parsing = threading.Lock()

Kind = Any
"""What a value is: `str`, `int`, `bool`, `Time`, `Base64`, `Raw`, ``[KIND]``, a `Map`, a `Struct` or a `Pointer`."""


@dataclass(frozen=True)
class Map:
    """An object with any members. Their names differ if their case differs."""

    kind: Kind


@dataclass(frozen=True)
class Pointer:
    """A value that becomes `None` if it is absent or ``null``."""

    kind: Kind


class Struct:
    """An object with these members. Others are ignored.

    Args:
        members: what each member must be. Absent members and ``null`` become empty values
    """

    def __init__(self, members: Mapping[str, Kind]) -> None:
        self.members = members
        self.names = {name.lower(): name for name in members}


class Time:
    """A time of RFC 3339, as a string."""


class Base64:
    """Bytes, as a string or a list of numbers."""


class Raw:
    """Anything. The value becomes `True` if it is there, even as ``null``."""


class NotReadableError(ValueError):
    """Engines cannot read the document, or it is too large.

    Args:
        problem: begins with a verb, such as "is not JSON"
        member: path of the member that has the problem, such as ``layers[0].size``; ``""`` for the document
    """

    def __init__(self, problem: str, member: str = "") -> None:
        super().__init__(f"{member} {problem}".lstrip())
        self.member = member


_WORDS: dict[Kind, str] = {
    str: "a string",
    int: "a number without a fraction",
    bool: "true or false",
    Time: "a time such as 2006-01-02T15:04:05Z",
    Base64: "a string in Base64",
}
_EMPTY: dict[Kind, Any] = {str: "", int: 0, bool: False, Time: "", Base64: "", Raw: False}
_LONGEST_NUMBER = 20  # digits of a number that fits into 64 bits, with its sign


class _Members(list[tuple[str, Any]]):
    """The members of an object."""


def read_json(content: bytes, kind: Struct) -> tuple[dict[str, Any], list[str]]:
    """Parse a document.

    Returns:
        the members of `kind`; and a text for each pair of members with equal names, such as ``'layers' and 'Layers'``

    Raises:
        NotReadableError: engines cannot read the document
    """
    if content.count(b",") + content.count(b"{") + content.count(b"[") > _MOST_VALUES:
        raise NotReadableError(f"has more than {_MOST_VALUES:,} values and is not read")
    try:
        with _parsing:
            # Like Go, this replaces bytes that are not UTF-8, but refuses a byte order mark.
            document = json.loads(
                content.decode(errors="replace"),
                object_pairs_hook=_Members,
                parse_int=_integer,
                parse_constant=_refuse_constant,
            )
    except RecursionError:
        raise NotReadableError("is nested too deeply to be read") from None
    except ValueError as error:
        raise NotReadableError(f"is not JSON: {str(error)[:_SHOWN]}") from None
    if not isinstance(document, _Members):
        raise NotReadableError(f"must be a JSON object, not {shown(document)}")
    twice: list[str] = []
    return _converted(document, kind, "", twice), twice


def _integer(text: str) -> float:
    return int(text) if len(text) <= _LONGEST_NUMBER else float("inf")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _converted(value: Any, kind: Kind, where: str, twice: list[str]) -> Any:
    """Return the value of this kind."""
    if kind is Raw:
        return True
    if value is None:
        return _empty(kind)
    if isinstance(kind, Pointer):
        return _converted(value, kind.kind, where, twice)
    container = _CONTAINERS.get(type(kind))
    if container and type(value) is container[0]:
        return container[1](value, kind, where, twice)
    if not container and _is(value, kind):
        return value
    words = "a list" if isinstance(kind, list) else _WORDS[kind] if isinstance(kind, type) else "an object"
    raise NotReadableError(f"must be {words}, not {shown(value)}", where)


def _list(value: list[Any], kind: list[Kind], where: str, twice: list[str]) -> list[Any]:
    return [_converted(entry, kind[0], f"{where}[{number}]", twice) for number, entry in enumerate(value)]


def _map(value: _Members, kind: Map, where: str, twice: list[str]) -> dict[str, Any]:
    return {name: _converted(member, kind.kind, _inside(where, name), twice) for name, member in value}


def _struct(value: _Members, kind: Struct, where: str, twice: list[str]) -> dict[str, Any]:
    known: dict[str, str] = {}
    found: dict[str, Any] = {}
    for written, member in value:
        name = kind.names.get(written.translate(_FOLDED).lower())
        if name is None:
            continue
        if name in known:
            twice.append(f"{_inside(where, known[name])!r} and {_inside(where, written)!r}")
        known[name] = written
        found[name] = _converted(member, kind.members[name], _inside(where, name), twice)
    return {name: found.get(name, _empty(member)) for name, member in kind.members.items()}


_CONTAINERS: dict[type, tuple[type, Callable[..., Any]]] = {
    list: (list, _list),
    Map: (_Members, _map),
    Struct: (_Members, _struct),
}


def _empty(kind: Kind) -> Any:
    if isinstance(kind, Struct):
        return {name: _empty(member) for name, member in kind.members.items()}
    if isinstance(kind, (list, Map)):
        return [] if isinstance(kind, list) else {}
    return None if isinstance(kind, Pointer) else _EMPTY[kind]


def _is(value: Any, kind: Kind) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -1 << 63 <= value < 1 << 63
    if kind in (Time, Base64):
        return _is_time(value) if kind is Time else isinstance(value, list) or _is_base64(value)
    return kind in (str, bool) and isinstance(value, kind)


def _is_time(text: object) -> bool:
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    try:
        return bool(found and dt.datetime.fromisoformat(found[1] + found[2].zfill(8)))
    except ValueError:
        return False


def _is_base64(text: object) -> bool:
    try:
        base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False
    return True


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def shown(value: object) -> str:
    """Return a value as an error message shows it."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) and not isinstance(value, _Members) else "an object"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
