"""Random images for hypothesis: tars of a few members, damaged bytes, and documents with one changed value."""

from __future__ import annotations

import copy
import gzip
import re
import struct
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from support.mutations import Draft
from support.raw_tar import END, entry, pax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.mutations import Step

_parts = st.sampled_from(["a", "b", ".", "..", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh.", "usr", "token", ""])
_paths = st.lists(_parts, min_size=1, max_size=3).map("/".join)
_kinds = st.sampled_from([*"000001122255553467gLKxS", "\0"])
_records = st.sampled_from(
    ["path=b", "size=3", "linkpath=a", "mtime=1.5", "uid=7", "comment=x", "SCHILY.xattr.user.a=b"]
)
_links = st.one_of(_paths, st.sampled_from(["/usr/token", "usr/token", "a", "b"]))
_fields = st.dictionaries(
    st.sampled_from([0, 100, 108, 116, 124, 136, 156, 157, 257, 329, 337, 345]),
    st.binary(min_size=1, max_size=12),
    max_size=1,
)


@st.composite
def _member(draw: st.DrawFn) -> bytes:
    kind, content = draw(_kinds), draw(st.sampled_from([b"", b"", b"abc", b"x" * 600]))
    if kind == "x":
        return pax(*draw(st.lists(_records, max_size=2)))
    fields = draw(st.one_of(st.just({}), st.just({}), st.just({}), _fields))
    content = b"" if kind in "12345" and draw(st.booleans()) else content
    return entry(draw(_paths), content, kind, link=draw(_links) if kind in "12" else "", fields=fields)


_tars = st.tuples(
    st.lists(_member(), max_size=5).map(b"".join), st.sampled_from([END, END, END, b"", bytes(512), b"x"])
)
_damages = st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=8), st.integers(0, 3))
_values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.just(1.5), st.text("ab:/\u017fK", max_size=5),
    st.just([]), st.just({}), st.just([None]), st.just({"a": 1}),
)  # fmt: skip
_names = st.sampled_from(
    ["Size", "diGest", "LAYERS", "urls", "rootf\u017f", "os", "Platform", "x", "mediaType", "annotations"]
)
_ways = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def changed(document: Any, way: Sequence[int], value: Any, name: str = "") -> Any:
    """Return the document with one value replaced, or with a member of this name. `way` selects the place."""
    document = copy.deepcopy(document)
    here: Any = document
    for step, choice in enumerate(way):
        keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        if name and isinstance(here, dict) and choice > 30:
            here[name] = value
            break
        if not keys:
            break
        key = keys[choice % len(keys)]
        if step == len(way) - 1 or not isinstance(here[key], (dict, list)):
            here[key] = value
            break
        here = here[key]
    return document


def _damaged(content: bytes, damage: tuple[int, bytes, int], *, repairs: bool) -> bytes:
    at, piece, cut = damage[0] % len(content), damage[1], damage[2]
    content = content[:at] + piece + content[at + len(piece) :]
    if repairs:  # the checksum of the header that was damaged
        start = at // 512 * 512
        header = bytearray(content[start : start + 512])
        header[148:156] = b" " * 8
        content = content[: start + 148] + b"%06o\0 " % sum(header) + content[start + 156 :]
    return content[: len(content) - cut * 100] if cut else content


def _shown(content: object) -> str:
    return re.sub(r"(\\x00)+", "~", repr(content))


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """A draft of a random image. Its kind shows what is random."""
    kind = draw(st.sampled_from(["members", "members", "members", "tar bytes", "gzip bytes", "gzip header", "json"]))
    if kind == "members":
        more, end = draw(_tars)
        return Draft(f"{kind} {_shown(more + end)}", ("tar",), lambda start, _: start + more + end)
    damage = draw(_damages)
    kind = f"{kind} {_shown(damage)}"
    if kind.startswith("tar bytes"):
        repairs = draw(st.booleans())
        more = entry("a", b"content" * 20) + entry("b", kind="2", link="a") + entry("c", kind="1", link="a") + END
        return Draft(f"{kind} {repairs}", ("tar",), lambda start, _: _damaged(start + more, damage, repairs=repairs))
    if kind.startswith("gzip bytes"):
        return Draft(kind, ("blob",), lambda tar, _: _damaged(gzip.compress(tar, mtime=0), damage, repairs=False))
    if kind.startswith("gzip header"):
        header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, draw(st.integers(0, 255)), 0, 0, 255) + damage[1]
        return Draft(f"{kind} {header!r}", ("blob",), lambda tar, _: header + gzip.compress(tar, mtime=0)[10:])
    step: Step = draw(st.sampled_from(["config", "manifest", "index"]))
    way, name, value = draw(_ways), draw(_names), draw(_values)
    change = f"json {step} {way} {name} {value!r}"
    return Draft(change, (step,), lambda document, _: changed(document, way, value, name))
