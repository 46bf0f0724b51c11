"""Kinds of images that differ from a sound image in one way each. Engines pull some of them, and refuse others."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import secrets
import struct
import sys
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from support.pushing import CONFIG, LAYER, MANIFEST, digest
from support.raw_tar import END, entry, pax

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
TAR = "application/vnd.oci.image.layer.v1.tar"
PLATFORM = {"os": "linux", "architecture": "amd64"}
NOWHERE = "http://127.0.0.1:9/layer"

Step = Literal[
    "tar", "blob", "layer", "config", "config text", "config entry", "manifest", "manifest text", "entry", "index",
    "index text", "served",
]  # fmt: skip


@dataclass
class Draft:
    """An image that is being made. Each step may be replaced by the mutation.

    Attributes:
        kind: name of the mutation
        change: the mutation: a function of the value of its step and this draft. It returns the new value, or changes
            the value and returns `None`
        steps: the steps that `change` replaces
        token: makes the content new, so that no engine has it already
        served: content by path in the repository, and media type
    """

    kind: str
    steps: tuple[Step, ...]
    change: Callable[[Any, Draft], Any]
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    served: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def step(self, name: Step, value: Any) -> Any:
        if name not in self.steps:
            return value
        changed = self.change(value, self)
        return value if changed is None else changed

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        self.served[f"blobs/{digest(content)}"] = content, media_type
        return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

    def document(self, content: bytes, media_type: str) -> dict[str, Any]:
        self.served[f"manifests/{digest(content)}"] = content, media_type
        return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

    def make(self) -> dict[str, tuple[bytes, str]]:
        """Make the image, and return what a registry serves."""
        lower = entry("etc/", kind="5") + entry("etc/lower", self.token.encode()) + END
        start = entry("usr/", kind="5") + entry("usr/token", self.token[::-1].encode())
        tar = self.step("tar", start) if "tar" in self.steps else start + END
        blob = self.step("blob", tar) if "blob" in self.steps else gzip.compress(tar, 1, mtime=0)
        blob, media_type = blob if isinstance(blob, tuple) else (blob, LAYER)
        layers = [self.blob(gzip.compress(lower, 1, mtime=0), LAYER), self.blob(blob, media_type)]
        layers[1] = self.step("layer", layers[1])
        config = {**PLATFORM, "config": {"Labels": {"token": self.token}}, "rootfs": {"type": "layers"}}
        config["rootfs"]["diff_ids"] = [digest(lower), digest(tar)]  # type: ignore[index]
        config = self.step("config", config)
        text = self.step("config text", json.dumps(config))
        described = self.step("config entry", self.blob(_bytes(text), CONFIG))
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        manifest = self.step("manifest", manifest)
        text = self.step("manifest text", json.dumps(manifest))
        found = self.document(_bytes(text), manifest.get("mediaType") or MANIFEST)
        if {"entry", "index", "index text"} & {*self.steps}:
            listed = self.step("entry", {**found, "platform": PLATFORM})
            index = self.step("index", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]})
            text = self.step("index text", json.dumps(index))
            found = self.document(_bytes(text), index.get("mediaType") or INDEX)
        self.served["manifests/v1"] = self.served[f"manifests/{found['digest']}"]
        self.step("served", self.served)
        return self.served


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


KINDS: dict[str, tuple[tuple[Step, ...], Callable[[Any, Draft], Any]]] = {}


def kind(name: str, step: Step | tuple[Step, ...], change: Callable[[Any], Any]) -> None:
    assert name not in KINDS, name
    KINDS[name] = (step if isinstance(step, tuple) else (step,)), lambda value, _draft: change(value)


def kinds(step: Step, changes: dict[str, Callable[[Any], Any]]) -> None:
    for name, change in changes.items():
        kind(f"{step}: {name}", step, change)


def draft(name: str) -> Draft:
    """Return the draft of an image of this kind."""
    steps, change = KINDS[name]
    return Draft(name, steps, change)


# Members of the upper layer's tar. Each text is appended to a sound beginning, before the end of the tar.
FILE = entry("a", b"content")
_MEMBERS: dict[str, bytes] = {
    "nothing more": b"",
    "magic of version 7": entry("a", b"x", magic=b"\0" * 8),
    "magic of GNU": entry("a", b"x", magic=b"ustar  \0"),
    "magic of nobody": entry("a", b"x", magic=b"nobody00"),
    "magic of star": entry("a", b"x", fields={508: b"tar\0"}),
    "wrong checksum": entry("a", b"x", checksum=b"000001\0 "),
    "wrong checksum without a magic": entry("a", b"x", checksum=b"000001\0 ", magic=bytes(8)),
    "empty checksum": entry("a", b"x", checksum=bytes(8)),
    "checksum in letters": entry("a", b"x", checksum=b"abcdef\0 "),
    "checksum of eight digits": entry("a", b"x", checksum=b"%08o" % int(entry("a", b"x")[148:154], 8)),
    "checksum of signed bytes": b"",  # replaced below
    "header of zeros, then a file": bytes(512) + FILE,
    **{f"type {kind!r}": entry("a", kind=kind) for kind in ["\0", *"346789ABDMNVX I"]},
    **{f"type {kind!r} with content": entry("a", b"content", kind) for kind in ["\0", *"567V1"]},
    "type NUL, name with a slash": entry("a/", kind="\0"),
    "type NUL, name with a slash, content": entry("a/", b"content", kind="\0"),
    "file, name with a slash": entry("a/", b"content"),
    "character device": entry("dev/null", kind="3", fields={329: b"0000001\0", 337: b"0000003\0"}),
    "character device 0 0": entry("dev/null", kind="3"),
    "hard link": FILE + entry("b", kind="1", link="a"),
    "hard link to an absolute path": FILE + entry("b", kind="1", link="/a"),
    "hard link to dots": FILE + entry("b", kind="1", link="../../a"),
    "hard link to nothing": entry("b", kind="1", link="nowhere"),
    "hard link to a later file": entry("b", kind="1", link="a") + FILE,
    "hard link to a folder": entry("b", kind="1", link="usr"),
    "hard link to itself": FILE + entry("a", kind="1", link="a"),
    "hard link to a lower layer": entry("b", kind="1", link="etc/lower"),
    "hard link to a symbolic link": entry("c", kind="2", link="nowhere") + entry("b", kind="1", link="c"),
    "hard link through a symbolic link": entry("c", kind="2", link="usr") + entry("b", kind="1", link="c/token"),
    "hard link to an empty name": entry("b", kind="1"),
    "hard link to a hard link": FILE + entry("b", kind="1", link="a") + entry("c", kind="1", link="b"),
    "hard link to a removed file": FILE + entry(".wh.a") + entry("b", kind="1", link="a"),
    "hard link under a file": FILE + entry("a/b", kind="1", link="a"),
    "hard link to a fifo": entry("f", kind="6") + entry("b", kind="1", link="f"),
    "symbolic link": entry("b", kind="2", link="a"),
    "symbolic link to an empty name": entry("b", kind="2"),
    "symbolic link to 5000 characters": pax(f"linkpath={'x' * 5000}") + entry("b", kind="2"),
    "symbolic link to 4000 characters": pax(f"linkpath={'x/' * 2000}") + entry("b", kind="2"),
    "symbolic link with a size": entry("b", kind="2", link="a", size=512),
    "symbolic link to itself": entry("b", kind="2", link="b"),
    "file through a symbolic link": entry("b", kind="2", link="usr") + entry("b/c", b"x"),
    "file through a symbolic link to nowhere": entry("b", kind="2", link="nowhere") + entry("b/c", b"x"),
    "file through a symbolic link to itself": entry("b", kind="2", link="b") + entry("b/c", b"x"),
    "file through two links in a circle": entry("b", kind="2", link="c") + entry("c", kind="2", link="b")
    + entry("b/c", b"x"),
    "file through a symbolic link to a file": FILE + entry("b", kind="2", link="a") + entry("b/c", b"x"),
    "file through a symbolic link out of the root": entry("b", kind="2", link="../../..") + entry("b/c", b"x"),
    "folder over a symbolic link": entry("b", kind="2", link="usr") + entry("b/", kind="5") + entry("b/c", b"x"),
    "file under a file": FILE + entry("a/b", b"x"),
    "file under a file of a lower layer": entry("etc/lower/b", b"x"),
    "folder under a file": FILE + entry("a/b/", kind="5"),
    "whiteout under a file": FILE + entry("a/.wh.b"),
    "file far under a file": FILE + entry("a/b/c/d", b"x"),
    "folder over a file": FILE + entry("a/", kind="5"),
    "folder over a file, and a file in it": FILE + entry("a/", kind="5") + entry("a/b", b"x"),
    "file over a folder": entry("a/", kind="5") + entry("a/b", b"x") + FILE,
    "file over a folder of a lower layer": entry("etc", b"x"),
    "file over a folder, and a file in it": entry("a/", kind="5") + FILE + entry("a/b", b"x"),
    "file twice": FILE + FILE,
    "folder twice": entry("a/", kind="5") + entry("a/", kind="5"),
    "symbolic link over a folder": entry("a/", kind="5") + entry("a", kind="2", link="b"),
    "whiteout": entry("etc/.wh.lower"),
    "whiteout of nothing": entry("etc/.wh.nothing"),
    "whiteout in no folder": entry("none/.wh.nothing"),
    "whiteout of a folder": entry(".wh.etc"),
    "whiteout with content": entry("etc/.wh.lower", b"content"),
    "whiteout that is a folder": entry("etc/.wh.lower/", kind="5"),
    "whiteout that is a symbolic link": entry("etc/.wh.lower", kind="2", link="x"),
    "whiteout of an unknown type": entry("etc/.wh.lower", kind="7"),
    "whiteout without a name": entry("etc/.wh."),
    "whiteout without a name in the root": entry(".wh."),
    "whiteout of .": entry("etc/.wh.."),
    "whiteout of ..": entry("etc/.wh..."),
    "whiteout of .. in the root": entry(".wh..."),
    "whiteout of ...": entry("etc/.wh...."),
    "whiteout of a whiteout": entry("etc/.wh..wh.lower"),
    "whiteout of .wh.": entry("etc/.wh..wh."),
    "whiteout twice": entry("etc/.wh.lower") + entry("etc/.wh.lower"),
    "whiteout after the file": FILE + entry(".wh.a"),
    "whiteout before the file": entry(".wh.a") + FILE,
    "whiteout before a folder": entry(".wh.a") + entry("a/", kind="5") + entry("a/b", b"x"),
    "whiteout after the folder": entry("a/", kind="5") + entry("a/b", b"x") + entry(".wh.a"),
    "opaque folder": entry("etc/.wh..wh..opq"),
    "opaque folder twice": entry("etc/.wh..wh..opq") + entry("etc/.wh..wh..opq"),
    "opaque root": entry(".wh..wh..opq"),
    "opaque folder that is none": entry("none/.wh..wh..opq"),
    "opaque file": FILE + entry("a/.wh..wh..opq"),
    "opaque folder after its files": entry("b/a", b"x") + entry("b/.wh..wh..opq"),
    "plnk of AUFS": entry(".wh..wh.plnk/", kind="5") + entry(".wh..wh.plnk/1.2", b"x"),
    "aufs of AUFS": entry(".wh..wh.aufs", b"x"),
    "folder named as a whiteout": entry("etc/.wh.lower/x", b"x"),
    "file in a removed folder": entry(".wh.b") + entry("b/c", b"x"),
    "empty name": entry("", b"x"),
    "empty name, unknown type": entry("", kind="7"),
    "name .": entry(".", kind="5"),
    "name . of a file": entry(".", b"x"),
    "name /": entry("/", kind="5"),
    "name ..": entry("..", b"x"),
    "absolute name": entry("/a", b"x"),
    "name of dots": entry("../../a", b"x"),
    "name of dots inside": entry("usr/../../b", b"x"),
    "name with a backslash": entry("a\\b", b"x"),
    "name with a line break": entry("a\nb", b"x"),
    "name that is not UTF-8": entry(b"a\xff\xfe", b"x"),
    "name of 255 bytes": pax(f"path={'x' * 255}") + entry("a", b"x"),
    "name of 256 bytes": pax(f"path={'x' * 256}") + entry("a", b"x"),
    "folder of 256 bytes": pax(f"path={'x' * 256}/a") + entry("a", b"x"),
    "folder of 256 bytes, removed by dots": pax(f"path={'x' * 256}/../a") + entry("a", b"x"),
    "symbolic link of 256 bytes": pax(f"path={'x' * 256}") + entry("a", kind="2", link="x"),
    "whiteout of 260 bytes": pax(f"path=.wh.{'x' * 256}") + entry("a"),
    "whiteout of 255 bytes": pax(f"path=.wh.{'x' * 255}") + entry("a"),
    "path of 3000 bytes": pax(f"path={'x/' * 1500}a") + entry("a", b"x"),
    "path of 4200 bytes": pax(f"path={'x/' * 2100}a") + entry("a", b"x"),
    "prefix": entry("a", b"x", fields={345: b"usr/prefix"}),
    "prefix of GNU": entry("a", b"x", magic=b"ustar  \0", fields={345: b"usr/prefix"}),
    "negative size": entry("a", size=b"\xff" * 12),
    "huge size": entry("a", size=b"\x80" + b"\0" * 3 + b"\x40" + b"\0" * 7),
    "size of 2**63": entry("a", size=b"\x80" + b"\0" * 3 + b"\x80" + b"\0" * 7),
    "size in binary": entry("a", b"x", size=b"\x80" + b"\0" * 10 + b"\x01"),
    "size in letters": entry("a", size=b"hello world\0"),
    "size with an eight": entry("a", size=b"00000000008\0"),
    "size in spaces": entry("a", size=b" " * 12),
    "size with spaces around": entry("a", b"x", size=b"     1      "),
    "size with a sign": entry("a", b"x", size=b"+0000000001\0"),
    "size with an underscore": entry("a", b"x" * 8, size=b"0000000_010\0"),
    "size with NULs in front": entry("a", b"x", size=b"\0\0\0\0\0\0\0\0\0\0001\0"),
    "size with NULs inside": entry("a", b"x", size=b"1\x003\0\0\0\0\0\0\0\0\0"),
    "size of a folder": entry("a/", kind="5", size=512),
    "size of a fifo": entry("a", kind="6", size=512),
    "mode in letters": entry("a", b"x", fields={100: b"letters\0"}),
    "mode empty": entry("a", b"x", fields={100: bytes(8)}),
    "owner in letters": entry("a", b"x", fields={108: b"letters\0"}),
    "owner in binary": entry("a", b"x", fields={108: b"\x80\0\0\0\xff\xff\xff\xfe"}),
    "owner of -1": entry("a", b"x", fields={108: b"\xff" * 8}),
    "group in letters": entry("a", b"x", fields={116: b"letters\0"}),
    "time in letters": entry("a", b"x", fields={136: b"hello world\0"}),
    "time before 1970": entry("a", b"x", fields={136: b"\xff" * 11 + b"\x01"}),
    "time far away": entry("a", b"x", fields={136: b"\x80\0\0\0\x7f" + b"\xff" * 7}),
    "device in letters": entry("a", b"x", fields={329: b"letters\0"}),
    "device in letters, version 7": entry("a", b"x", magic=bytes(8), fields={329: b"letters\0"}),
    "rubbish after the prefix of GNU": entry("a", b"x", magic=b"ustar  \0", fields={345: b"rubbish"}),
    "pax path": pax("path=b") + entry("a", b"x"),
    "pax path, empty": pax("path=") + entry("a", b"x"),
    "pax path with NUL": pax("path=b\0c") + entry("a", b"x"),
    "pax path that is not UTF-8": pax(b"11 path=\xff\xfe\n") + entry("a", b"x"),
    "pax twice": pax("path=b") + pax("path=c") + entry("a", b"x"),
    "pax with two paths": pax("path=b", "path=c") + entry("a", b"x"),
    "pax, then GNU": pax("path=b") + entry("././@LongLink", b"c\0", "L") + entry("a", b"x"),
    "pax size": pax("size=3") + entry("a", b"abc", size=0),
    "pax size too large": pax("size=100000") + entry("a", b"x"),
    "pax size too small": pax("size=1") + entry("a", b"x" * 600),
    "pax size in letters": pax("size=x") + entry("a", b"x"),
    "pax size negative": pax("size=-1") + entry("a", b"x"),
    "pax size with a sign": pax("size=+1") + entry("a", b"x"),
    "pax size with an underscore": pax("size=1_0") + entry("a", b"x" * 10),
    "pax size of a folder": pax("size=512") + entry("a/", kind="5"),
    "pax time in letters": pax("mtime=x") + entry("a", b"x"),
    "pax time of two dots": pax("mtime=1.2.3") + entry("a", b"x"),
    "pax time": pax("mtime=1.25", "atime=-1", "ctime=1.") + entry("a", b"x"),
    "pax owner in letters": pax("uid=x") + entry("a", b"x"),
    "pax owner": pax("uid=123456789") + entry("a", b"x"),
    "pax owner of 2**40": pax("uid=1099511627776") + entry("a", b"x"),
    "pax names": pax("uname=x", "gname=y", "comment=z") + entry("a", b"x"),
    "pax name with NUL": pax("uname=x\0y") + entry("a", b"x"),
    "pax comment with NUL": pax("comment=x\0y") + entry("a", b"x"),
    "pax key with NUL": pax("com\0ment=x") + entry("a", b"x"),
    "pax without a key": pax("=x") + entry("a", b"x"),
    "pax without an equals sign": pax(b"6 abc\n") + entry("a", b"x"),
    "pax without a line break": pax(b"9 path=bc") + entry("a", b"x"),
    "pax with a wrong length": pax(b"99 path=b\n") + entry("a", b"x"),
    "pax with a short length": pax(b"5 path=b\n") + entry("a", b"x"),
    "pax with a length in letters": pax(b"x path=b\n") + entry("a", b"x"),
    "pax with a length with zeros": pax(b"0012 path=b\n") + entry("a", b"x"),
    "pax with a signed length": pax(b"+11 path=b\n") + entry("a", b"x"),
    "pax with rubbish at the end": pax("path=b", b"\0\0\0\0") + entry("a", b"x"),
    "pax empty": pax() + entry("a", b"x"),
    "pax at the end": FILE + pax("path=b"),
    "pax cut off": pax("path=b")[:520],
    "pax of 2 MiB": pax(f"comment={'x' * (2 << 20)}") + entry("a", b"x"),
    "pax of 500 KiB": pax(f"comment={'x' * (500 << 10)}") + entry("a", b"x"),
    "pax global": pax("path=b", kind="g") + entry("a", b"x"),
    "pax global, comment": pax("comment=b", kind="g") + entry("a", b"x"),
    "pax global, wrong": pax(b"x path=b\n", kind="g") + entry("a", b"x"),
    "pax global, at the end": FILE + pax("comment=b", kind="g"),
    "pax global, after pax": pax("path=b") + pax("comment=b", kind="g") + entry("a", b"x"),
    "pax global, size in letters": pax("size=x", kind="g") + entry("a", b"x"),
    "pax global, whiteout": entry(".wh.", b"14 comment=bc\n", "g") + entry("a", b"x"),
    "pax of Solaris": pax("path=b", kind="X") + entry("a", b"x"),
    "attribute of users": pax("SCHILY.xattr.user.x=y") + entry("a", b"x"),
    "attribute of users on a link": pax("SCHILY.xattr.user.x=y") + entry("a", kind="2", link="b"),
    "attribute that nobody knows": pax("SCHILY.xattr.nobody.x=y") + entry("a", b"x"),
    "attribute without a name": pax("SCHILY.xattr.=y") + entry("a", b"x"),
    "attribute without a namespace": pax("SCHILY.xattr.x=y") + entry("a", b"x"),
    "attribute of 300 characters": pax(f"SCHILY.xattr.user.{'x' * 300}=y") + entry("a", b"x"),
    "capabilities": pax(b"57 SCHILY.xattr.security.capability=\1\0\0\2\0\4\0\0" + bytes(12) + b"\n") + entry("a", b"x"),
    "capabilities that are none": pax("SCHILY.xattr.security.capability=x") + entry("a", b"x"),
    "attribute of trusted": pax("SCHILY.xattr.trusted.x=y") + entry("a", b"x"),
    "attribute of overlayfs": pax("SCHILY.xattr.trusted.overlay.opaque=y") + entry("a/", kind="5"),
    "attribute of system": pax("SCHILY.xattr.system.posix_acl_access=y") + entry("a", b"x"),
    "attribute of SELinux": pax("SCHILY.xattr.security.selinux=y") + entry("a", b"x"),
    "sparse of pax 1.0": pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=b", "GNU.sparse.realsize=4")
    + entry("a", b"1\n0\n4\n" + bytes(506) + b"abcd"),
    "sparse of pax 1.0 without a map": pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=4")
    + entry("a", b"x"),
    "sparse of pax 0.1, wrong": pax("GNU.sparse.numblocks=2", "GNU.sparse.map=0,4", "GNU.sparse.size=4")
    + entry("a", b"abcd"),
    "sparse of GNU": entry("a", b"abcd", "S", magic=b"ustar  \0", fields={386: b"00000000000\0" b"00000000004\0",
                                                                         483: b"00000000004\0"}),
    "sparse of GNU, wrong": entry("a", b"abcd", "S", magic=b"ustar  \0"),
    "long name of GNU": entry("././@LongLink", b"usr/" + b"x" * 150 + b"\0", "L") + entry("a", b"x"),
    "long name of GNU without NUL": entry("././@LongLink", b"usr/b", "L") + entry("a", b"x"),
    "long name of GNU, empty": entry("././@LongLink", b"", "L") + entry("a", b"x"),
    "long name of GNU, at the end": FILE + entry("././@LongLink", b"b\0", "L"),
    "long name of GNU, 2 MiB": entry("././@LongLink", b"x" * (2 << 20), "L") + entry("a", b"x"),
    "long name of GNU, twice": entry("././@LongLink", b"b\0", "L") * 2 + entry("a", b"x"),
    "long link of GNU": entry("././@LongLink", b"x" * 150 + b"\0", "K") + entry("a", kind="2"),
    "long link of GNU, hard": entry("././@LongLink", b"usr/token\0", "K") + entry("a", kind="1"),
    "long link of GNU, hard, to nothing": entry("././@LongLink", b"none\0", "K")
    + entry("a", kind="1", link="usr/token"),
}  # fmt: skip


def _appending(members: bytes) -> Callable[[bytes], bytes]:
    return lambda start: start + members + END


for _name, _members in _MEMBERS.items():
    kind(f"tar: {_name}", "tar", _appending(_members))


def _signed_checksum(start: bytes) -> bytes:
    header = bytearray(entry(b"\xff\xfe", b""))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in header)
    return start + bytes(header) + END


KINDS["tar: checksum of signed bytes"] = ("tar",), lambda start, _: _signed_checksum(start)
kinds(
    "tar",
    {
        "no end": lambda start: start,
        "one block of zeros at the end": lambda start: start + bytes(512),
        "a part of a block at the end": lambda start: start + bytes(100),
        "a block and a part at the end": lambda start: start + bytes(700),
        "ends in a header": lambda start: start + entry("a", b"x" * 1000)[:512],
        "ends in a part of a header": lambda start: start + entry("a", b"x")[:300],
        "ends in a content": lambda start: start + entry("a", b"x" * 1000)[:900],
        "ends without padding": lambda start: start + entry("a", b"x" * 10)[:522],
        "ends in padding": lambda start: start + entry("a", b"x" * 10)[:600],
        "ends in a folder": lambda start: start + entry("a/", kind="5"),
        "rubbish after the end": lambda start: start + END + b"rubbish" * 999,
        "a tar after the end": lambda start: start + END + entry("a", b"x", kind="7") + END,
        "one block of zeros, then rubbish": lambda start: start + bytes(512) + b"rubbish" * 999,
        "rubbish instead of a header": lambda start: start + b"rubbish" * 999,
        "rubbish instead of a header, short": lambda start: start + b"rubbish",
        "rubbish only": lambda start: b"rubbish" * 999 + start[:0],
        "end only": lambda _start: END,
        "nothing": lambda _start: b"",
        "one zero": lambda _start: b"\0",
        "text": lambda start: b"x" * 100 + start[1024:1040],
    },
)


def gzipped(
    content: bytes, *, flags: int = 0, more: bytes = b"", method: int = 8, header_sum: int | None = None
) -> bytes:
    """Return a gzip file with these fields in its header."""
    header = struct.pack("<BBBBIBB", 0x1F, 0x8B, method, flags, 0, 0, 255) + more
    if flags & 2:
        header += struct.pack("<H", (zlib.crc32(header) & 0xFFFF) if header_sum is None else header_sum)
    body = zlib.compressobj(1, wbits=-15)
    packed = body.compress(content) + body.flush()
    return header + packed + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def _replaced(content: bytes, at: int, piece: bytes) -> bytes:
    at %= len(content)
    return content[:at] + piece + content[at + len(piece) :]


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
_ZSTD = f"{TAR}+zstd"


def zstd_file(content: bytes, **options: int) -> bytes:
    """Return a zstd file, made with these parameters."""
    values = {getattr(zstd.CompressionParameter, name): value for name, value in options.items()}
    compressor = zstd.ZstdCompressor(options=values)
    # The flush keeps the size of the frame unknown. If it were known, the window would be small.
    first = compressor.compress(content[:100], compressor.FLUSH_BLOCK)
    return first + compressor.compress(content[100:], compressor.FLUSH_FRAME)


kinds(
    "blob",
    {
        "two members of gzip": lambda tar: gzipped(tar[:700]) + gzipped(tar[700:]),
        "an empty member of gzip at the end": lambda tar: gzipped(tar) + gzipped(b""),
        "zeros after gzip": lambda tar: gzipped(tar) + bytes(100),
        "one zero after gzip": lambda tar: gzipped(tar) + bytes(1),
        "rubbish after gzip": lambda tar: gzipped(tar) + b"rubbish, and more of it",
        "one byte after gzip": lambda tar: gzipped(tar) + b"x",
        "a magic number after gzip": lambda tar: gzipped(tar) + b"\x1f\x8b\x08",
        "a cut off member after gzip": lambda tar: gzipped(tar) + gzipped(tar)[:-9],
        "gzip without its last byte": lambda tar: gzipped(tar)[:-1],
        "gzip without its trailer": lambda tar: gzipped(tar)[:-8],
        "gzip cut in half": lambda tar: gzipped(tar)[: len(gzipped(tar)) // 2],
        "gzip with a wrong checksum": lambda tar: _replaced(gzipped(tar), -8, b"abcd"),
        "gzip with a wrong size": lambda tar: _replaced(gzipped(tar), -4, b"abcd"),
        "gzip with a damaged place": lambda tar: _replaced(gzipped(tar), 40, b"\xff" * 8),
        "gzip with a name": lambda tar: gzipped(tar, flags=8, more=b"name\0"),
        "gzip with a name without an end": lambda _tar: b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"x" * 50,
        "gzip with a long name": lambda tar: gzipped(tar, flags=8, more=b"n" * 600 + b"\0"),
        "gzip with a comment": lambda tar: gzipped(tar, flags=16, more=b"comment\0"),
        "gzip with an extra field": lambda tar: gzipped(tar, flags=4, more=b"\x04\0abcd"),
        "gzip with a checksum of the header": lambda tar: gzipped(tar, flags=2),
        "gzip with a wrong checksum of the header": lambda tar: gzipped(tar, flags=2, header_sum=1),
        "gzip with a flag that nobody knows": lambda tar: gzipped(tar, flags=0x80),
        "gzip that is a text": lambda tar: gzipped(tar, flags=1),
        "gzip of another method": lambda tar: gzipped(tar, method=7),
        "the magic number of gzip": lambda _tar: b"\x1f\x8b\x08",
        "the beginning of gzip": lambda _tar: b"\x1f\x8b",
        "gzip of gzip": lambda tar: gzip.compress(gzip.compress(tar, mtime=0), mtime=0),
        "gzip without compression": lambda tar: gzip.compress(tar, 0, mtime=0),
        "zlib": zlib.compress,
        "bzip2": bz2.compress,
        "bzip2 of Docker's type": lambda tar: (bz2.compress(tar), DOCKER_LAYER),
        "xz": lzma.compress,
        "xz of Docker's type": lambda tar: (lzma.compress(tar), f"{DOCKER_LAYER}.gzip"),
        "no bytes": lambda _tar: b"",
        "no bytes, called tar": lambda _tar: (b"", TAR),
        "no compression": lambda tar: (tar, TAR),
        "no compression, called gzip": lambda tar: tar,
        "no compression, called zstd": lambda tar: (tar, _ZSTD),
        "no compression, called Docker's tar": lambda tar: (tar, DOCKER_LAYER),
        "no compression, called Docker's gzip": lambda tar: (tar, f"{DOCKER_LAYER}.gzip"),
        "gzip called tar": lambda tar: (gzipped(tar), TAR),
        "gzip called zstd": lambda tar: (gzipped(tar), _ZSTD),
        "gzip called Docker's tar": lambda tar: (gzipped(tar), DOCKER_LAYER),
        "gzip called Docker's gzip": lambda tar: (gzipped(tar), f"{DOCKER_LAYER}.gzip"),
        "zstd": lambda tar: (zstd_file(tar), _ZSTD),
        "zstd called gzip": zstd_file,
        "zstd called tar": lambda tar: (zstd_file(tar), TAR),
        "zstd called Docker's zstd": lambda tar: (zstd_file(tar), f"{DOCKER_LAYER}.zstd"),
        "zstd called Docker's gzip": lambda tar: (zstd_file(tar), f"{DOCKER_LAYER}.gzip"),
        "zstd with a checksum": lambda tar: (zstd_file(tar, checksum_flag=1), _ZSTD),
        "zstd with a wrong checksum": lambda tar: (_replaced(zstd_file(tar, checksum_flag=1), -4, b"abcd"), _ZSTD),
        "zstd cut off": lambda tar: (zstd_file(tar)[:-20], _ZSTD),
        "zstd without its last byte": lambda tar: (zstd_file(tar, checksum_flag=1)[:-1], _ZSTD),
        "zstd of two frames": lambda tar: (zstd_file(tar[:700]) + zstd_file(tar[700:]), _ZSTD),
        "zstd after a skippable frame": lambda tar: (SKIPPABLE + zstd_file(tar), _ZSTD),
        "zstd before a skippable frame": lambda tar: (zstd_file(tar) + SKIPPABLE, _ZSTD),
        "zstd before a cut off skippable frame": lambda tar: (zstd_file(tar) + SKIPPABLE[:10], _ZSTD),
        "rubbish after zstd": lambda tar: (zstd_file(tar) + b"rubbish", _ZSTD),
        "one zero after zstd": lambda tar: (zstd_file(tar) + b"\0", _ZSTD),
        "zeros after zstd": lambda tar: (zstd_file(tar) + bytes(100), _ZSTD),
        "gzip after zstd": lambda tar: (zstd_file(tar) + gzipped(b""), _ZSTD),
        "a window of 64 MiB": lambda tar: (zstd_file(tar, window_log=26), _ZSTD),
        "a window of 128 MiB": lambda tar: (zstd_file(tar, window_log=27), _ZSTD),
        "the magic number of zstd": lambda _tar: (b"\x28\xb5\x2f\xfd", _ZSTD),
    },
)


def _with(**members: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: {**value, **members}


def _without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: {key: member for key, member in value.items() if key != name}


_DESCRIPTOR: dict[str, Callable[[Any], Any]] = {
    "unchanged": lambda value: value,
    "size one more": lambda value: {**value, "size": value["size"] + 1},
    "size one less": lambda value: {**value, "size": value["size"] - 1},
    "size of 1": _with(size=1),
    "size of 2**40": _with(size=1 << 40),
    "size of 0": _with(size=0),
    "size null": _with(size=None),
    "no size": _without("size"),
    "size negative": _with(size=-1),
    "size a text": lambda value: {**value, "size": str(value["size"])},
    "size a fraction": lambda value: {**value, "size": float(value["size"])},
    "size true": _with(size=True),
    "Size instead of size": lambda value: {**_without("size")(value), "Size": value["size"]},
    "SIZE beside size": lambda value: {**value, "SIZE": 7},
    "digest of nothing": lambda value: {**value, "digest": digest(b"nothing at all")},
    "no digest": _without("digest"),
    "digest null": _with(digest=None),
    "digest in capitals": lambda value: {**value, "digest": value["digest"].upper().replace("SHA", "sha")},
    "digest too short": lambda value: {**value, "digest": value["digest"][:-1]},
    "digest without an algorithm": lambda value: {**value, "digest": value["digest"][7:]},
    "digest of SHA-512": _with(digest="sha512:" + "0" * 128),
    "Digest instead of digest": lambda value: {**_without("digest")(value), "Digest": value["digest"]},
    "diGest beside digest": lambda value: {**value, "diGest": digest(b"nothing at all")},
    "media type null": _with(mediaType=None),
    "no media type": _without("mediaType"),
    "media type empty": _with(mediaType=""),
    "media type that nobody knows": _with(mediaType="application/x-nobody"),
    "media type in capitals": lambda value: {**value, "mediaType": value["mediaType"].upper()},
    "media type with a parameter": lambda value: {**value, "mediaType": f"{value['mediaType']}; charset=utf-8"},
    "media type a number": _with(mediaType=1),
    "MediaType beside mediaType": lambda value: {**value, "MediaType": "application/x-nobody"},
    "address that leads nowhere": _with(urls=[NOWHERE]),
    "no address": _with(urls=[]),
    "address null": _with(urls=None),
    "address a text": _with(urls="x"),
    "address a number": _with(urls=[1]),
    "annotations": _with(annotations={"a": "b", "A": "c"}),
    "annotations a list": _with(annotations=["a"]),
    "annotation a number": _with(annotations={"a": 1}),
    "annotation null": _with(annotations={"a": None}),
    "member that nobody knows": _with(nobody={"size": [], "Size": 1}),
    "platform a text": _with(platform="linux/amd64"),
    "platform of numbers": _with(platform={"os": 1}),
    "features a text": _with(platform={**PLATFORM, "os.features": "x"}),
    "data": _with(data="aGVsbG8="),
    "data that is not Base64": _with(data="%"),
    "data a number": _with(data=[1]),
    "artifact type": _with(artifactType="application/x"),
    "artifact type a number": _with(artifactType=1),
}
kinds("layer", _DESCRIPTOR)
kinds(
    "layer",
    {
        f"media type {media_type}": _with(mediaType=media_type)
        for media_type in (
            f"{TAR}+gzip+nobody", f"{TAR}+nobody", f"{TAR}+nobody+gzip", f"{TAR}+",
            "application/vnd.oci.image.layer.v2.tar", "application/vnd.oci.image.layer.v2.tar+gzip",
            "application/vnd.oci.image.layer.",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar", f"{DOCKER_LAYER}.gzip+nobody",
            f"{DOCKER_LAYER}+gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar", f"{DOCKER_LAYER}.bzip2", f"{DOCKER_LAYER}.zstd",
            f"{TAR}+zstd", f"{TAR}+encrypted", f"{TAR}+gzip+encrypted", "application/octet-stream", "text/plain",
            CONFIG, MANIFEST,
        )
    },
)  # fmt: skip
kinds("config entry", _DESCRIPTOR)
kinds("entry", _DESCRIPTOR)
kinds(
    "config",
    {
        "diff_ids reversed": lambda value: value["rootfs"]["diff_ids"].reverse(),
        "one diff_id more": lambda value: value["rootfs"]["diff_ids"].append(digest(b"more")),
        "one diff_id less": lambda value: value["rootfs"]["diff_ids"].pop(),
        "one diff_id wrong": lambda value: value["rootfs"]["diff_ids"].__setitem__(1, digest(b"wrong")),
        "diff_id in capitals": lambda value: value["rootfs"]["diff_ids"].__setitem__(
            1, value["rootfs"]["diff_ids"][1].upper().replace("SHA", "sha")
        ),
        "diff_id empty": lambda value: value["rootfs"]["diff_ids"].__setitem__(1, ""),
        "diff_id null": lambda value: value["rootfs"]["diff_ids"].__setitem__(1, None),
        "diff_id a number": lambda value: value["rootfs"]["diff_ids"].__setitem__(1, 1),
        "diff_id of SHA-512": lambda value: value["rootfs"]["diff_ids"].__setitem__(
            1, "sha512:" + hashlib.sha512(b"").hexdigest()
        ),
        "diff_ids null": lambda value: value["rootfs"].update(diff_ids=None),
        "diff_ids empty": lambda value: value["rootfs"].update(diff_ids=[]),
        "diff_ids a text": lambda value: value["rootfs"].update(diff_ids="x"),
        "diff_ids an object": lambda value: value["rootfs"].update(diff_ids={}),
        "no rootfs": _without("rootfs"),
        "rootfs null": _with(rootfs=None),
        "rootfs a list": _with(rootfs=[]),
        "rootfs of another type": lambda value: value["rootfs"].update(type="layers+base"),
        "rootfs of no type": lambda value: value["rootfs"].pop("type") and None,
        "rootfs of a number as type": lambda value: value["rootfs"].update(type=1),
        "RootFS instead of rootfs": lambda value: {**_without("rootfs")(value), "RootFS": value["rootfs"]},
        "RootFS beside rootfs": lambda value: {**value, "RootFS": {"diff_ids": [digest(b"wrong")]}},
        "rootfs beside RootFS": lambda value: {"RootFS": {"diff_ids": [digest(b"wrong")]}, **value},
        "rootfs with a long s": lambda value: {**value, "rootf\u017f": {"diff_ids": [digest(b"wrong")]}},
        "rootfs with a long s, null": lambda value: {**value, "rootf\u017f": None},
        "Diff_IDs beside diff_ids": lambda value: value["rootfs"].update(Diff_IDs=[digest(b"wrong")]),
        "created": _with(created="2024-01-01T00:00:00Z"),
        "created with a zone": _with(created="2024-01-01T00:00:00.123456789+02:00"),
        "created null": _with(created=None),
        "created empty": _with(created=""),
        "created a word": _with(created="yesterday"),
        "created without a zone": _with(created="2024-01-01T00:00:00"),
        "created in month 13": _with(created="2024-13-01T00:00:00Z"),
        "created on February 30": _with(created="2024-02-30T00:00:00Z"),
        "created with a space": _with(created="2024-01-01 00:00:00Z"),
        "created with a small z": _with(created="2024-01-01T00:00:00z"),
        "created with a comma": _with(created="2024-01-01T00:00:00,5Z"),
        "created in second 60": _with(created="2024-01-01T00:00:60Z"),
        "created with a short hour": _with(created="2024-01-01T1:00:00Z"),
        "created with a zone of 25 hours": _with(created="2024-01-01T00:00:00+25:00"),
        "created a number": _with(created=1),
        "author a number": _with(author=1),
        "no architecture": _without("architecture"),
        "no os": _without("os"),
        "architecture null": _with(architecture=None),
        "architecture a number": _with(architecture=1),
        "architecture of nobody": _with(architecture="nobody"),
        "architecture x86_64": _with(architecture="x86_64"),
        "variant a number": _with(variant=1),
        "os.version a number": _with(**{"os.version": 1}),
        "os.features a text": _with(**{"os.features": "x"}),
        "os.features": _with(**{"os.features": ["x"]}),
        "config null": _with(config=None),
        "no config": _without("config"),
        "config a text": _with(config="x"),
        "config a list": _with(config=[]),
        "entry point a text": _with(config={"Entrypoint": "sh"}),
        "command a text": _with(config={"Cmd": "sh"}),
        "command of numbers": _with(config={"Cmd": [1]}),
        "command of null": _with(config={"Cmd": [None]}),
        "command null": _with(config={"Cmd": None}),
        "environment an object": _with(config={"Env": {"A": "b"}}),
        "environment of words": _with(config={"Env": ["A", "=", ""]}),
        "user a number": _with(config={"User": 1000}),
        "working directory a number": _with(config={"WorkingDir": 1}),
        "ports a list": _with(config={"ExposedPorts": ["80/tcp"]}),
        "ports": _with(config={"ExposedPorts": {"80/tcp": {}}}),
        "ports of numbers": _with(config={"ExposedPorts": {"80/tcp": 1}}),
        "ports of no number": _with(config={"ExposedPorts": {"x": {}}}),
        "ports null": _with(config={"ExposedPorts": {"80/tcp": None}}),
        "volumes a list": _with(config={"Volumes": ["/x"]}),
        "volumes": _with(config={"Volumes": {"/x": {}}}),
        "labels a list": _with(config={"Labels": ["x"]}),
        "labels of numbers": _with(config={"Labels": {"x": 1}}),
        "labels in two cases": _with(config={"Labels": {"x": "1", "X": "2"}}),
        "stop signal a number": _with(config={"StopSignal": 9}),
        "stop signal of nobody": _with(config={"StopSignal": "NOBODY"}),
        "ArgsEscaped a text": _with(config={"ArgsEscaped": "x"}),
        "health check": _with(config={"Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000}}),
        "health check a text": _with(config={"Healthcheck": "x"}),
        "health check of a text as interval": _with(config={"Healthcheck": {"Interval": "1s"}}),
        "OnBuild a text": _with(config={"OnBuild": "x"}),
        "Shell a text": _with(config={"Shell": "x"}),
        "Hostname a number": _with(config={"Hostname": 1}),
        "Tty a text": _with(config={"Tty": "x"}),
        "config of a member that nobody knows": _with(config={"Nobody": [1, {"a": None}]}),
        "Env beside env": _with(config={"Env": ["A=b"], "env": ["A=c"]}),
        "history": _with(history=[{"created": "2024-01-01T00:00:00Z", "created_by": "x"}, {"empty_layer": True}]),
        "history null": _with(history=None),
        "history an object": _with(history={}),
        "history of texts": _with(history=["x"]),
        "history of null": _with(history=[None]),
        "history created a word": _with(history=[{"created": "x"}]),
        "history empty_layer a text": _with(history=[{"empty_layer": "true"}]),
        "history created_by a number": _with(history=[{"created_by": 1}]),
        "history too long": _with(history=[{"created_by": "x"}] * 9),
        "member that nobody knows": _with(nobody={"a": [None]}),
        "container_config a text": _with(container_config="x"),
        "docker_version a number": _with(docker_version=1),
        "parent a number": _with(parent=1),
        "id a number": _with(id=1),
    },
)
_TEXT: dict[str, Callable[[str], str | bytes]] = {
    "byte order mark": lambda text: "\ufeff" + text,
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-32": lambda text: text.encode("utf-32-le"),
    "spaces around": lambda text: f" \t\r\n{text}\n ",
    "a form feed in front": lambda text: f"\f{text}",
    "a no-break space in front": lambda text: f"\xa0{text}",
    "NUL at the end": lambda text: f"{text}\0",
    "rubbish at the end": lambda text: f"{text}x",
    "twice": lambda text: text + text,
    "cut off": lambda text: text[:-1],
    "comma at the end": lambda text: f"{text[:-1]},}}",
    "comment": lambda text: f"/* x */{text}",
    "NaN": lambda text: f'{text[:-1]},"x":NaN}}',
    "Infinity": lambda text: f'{text[:-1]},"x":-Infinity}}',
    "a number with a zero in front": lambda text: f'{text[:-1]},"x":01}}',
    "a number without an end": lambda text: f'{text[:-1]},"x":1.}}',
    "a number of 400 digits": lambda text: f'{text[:-1]},"x":{"1" * 400}}}',
    "a number of 5000 digits": lambda text: f'{text[:-1]},"x":{"1" * 5000}}}',
    "a number with an exponent": lambda text: f'{text[:-1]},"x":1e999}}',
    "a control character": lambda text: f'{text[:-1]},"x":"\x01"}}',
    "DEL": lambda text: f'{text[:-1]},"x":"\x7f"}}',
    "a wrong escape": lambda text: f'{text[:-1]},"x":"\\x"}}',
    "a surrogate": lambda text: f'{text[:-1]},"x":"\\ud800"}}',
    "bytes that are not UTF-8": lambda text: f'{text[:-1]},"x":"'.encode() + b'\xff\xfe"}',
    "a surrogate in UTF-8": lambda text: f'{text[:-1]},"x":"\ud800"}}',
    "a name that is not UTF-8": lambda text: f"{text[:-1]}".encode() + b',"\xff":1}',
    "an empty name": lambda text: f'{text[:-1]},"":1}}',
    "600 lists": lambda text: f'{text[:-1]},"x":{"[" * 600}{"]" * 600}}}',
    "20000 lists": lambda text: f'{text[:-1]},"x":{"[" * 20000}{"]" * 20000}}}',
    "a name twice that nobody knows": lambda text: f'{text[:-1]},"x":1,"x":2,"X":3}}',
    "in a list": lambda text: f"[{text}]",
    "null": lambda _text: "null",
    "empty object": lambda _text: "{}",
    "empty": lambda _text: "",
    "escaped names": lambda text: text.replace('"digest"', '"\\u0064igest"').replace('"rootfs"', '"\\u0072ootfs"'),
}
kinds("config text", _TEXT)
kinds("manifest text", _TEXT)
kinds("index text", _TEXT)
_OTHER_LAYERS = [{"mediaType": LAYER, "digest": digest(b"other"), "size": 5}]


def _more(member: str) -> Callable[[str], str]:
    return lambda text: f"{text[:-1]},{member}}}"


kinds(
    "manifest text",
    {
        "layers twice": _more(f'"layers":{json.dumps(_OTHER_LAYERS)}'),
        "Layers after layers": _more(f'"Layers":{json.dumps(_OTHER_LAYERS)}'),
        "LAYERS after layers, null": _more('"LAYERS":null'),
        "LAYERS after layers, empty": _more('"LAYERS":[]'),
        "layers with a long s": _more(f'"layer\u017f":{json.dumps(_OTHER_LAYERS)}'),
        "layers with a long s, escaped": _more(f'"layer\\u017f":{json.dumps(_OTHER_LAYERS)}'),
        "layers with a long s instead": lambda text: text.replace('"layers"', '"layer\u017f"'),
        "Layers instead": lambda text: text.replace('"layers"', '"Layers"'),
        "Layers before layers": lambda text: f'{{"Layers":{json.dumps(_OTHER_LAYERS)},{text[1:]}',
        "CONFIG after config": _more(f'"CONFIG":{json.dumps(_OTHER_LAYERS[0])}'),
        "config twice, the same": lambda text: f'{{"config":{json.dumps(json.loads(text)["config"])},{text[1:]}',
        "mediaType twice": _more(f'"mediaType":"{MANIFEST}"'),
        "MediaType of an index": _more(f'"MediaType":"{INDEX}"'),
        "Kelvin sign": _more('"blo\u212ab":1,"blokb":2'),
        "annotations in two cases": _more('"annotations":{"a":"1","A":"2","a":"3"}'),
        "manifests": _more('"manifests":[]'),
        "manifests null": _more('"manifests":null'),
        "Manifests": _more('"Manifests":[]'),
        "fsLayers": _more('"fsLayers":[{"blobSum":"x"}]'),
        "fsLayers null": _more('"fsLayers":null'),
    },
)
kinds(
    "manifest",
    {
        "schemaVersion 1": _with(schemaVersion=1),
        "schemaVersion 3": _with(schemaVersion=3),
        "no schemaVersion": _without("schemaVersion"),
        "schemaVersion a text": _with(schemaVersion="2"),
        "schemaVersion a fraction": _with(schemaVersion=2.5),
        "no media type": _without("mediaType"),
        "media type null": _with(mediaType=None),
        "annotations null": _with(annotations=None),
        "no layers": _without("layers"),
        "layers null": _with(layers=None),
        "layers an object": _with(layers={}),
        "layers of null": lambda value: {**value, "layers": [*value["layers"], None]},
        "layers of texts": lambda value: {**value, "layers": [*value["layers"], "x"]},
        "layers reversed": lambda value: value["layers"].reverse(),
        "layer twice": lambda value: value["layers"].append(value["layers"][1]),
        "no config": _without("config"),
        "config null": _with(config=None),
        "config a list": _with(config=[]),
        "annotations": _with(annotations={"a": "b"}),
        "annotations of numbers": _with(annotations={"a": 1}),
        "annotations a list": _with(annotations=[]),
        "artifact type": _with(artifactType="application/x"),
        "artifact type a number": _with(artifactType=1),
        "subject": _with(subject={"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}),
        "subject a text": _with(subject="x"),
        "member that nobody knows": _with(nobody=[{"layers": 1, "Layers": 2}]),
        "Docker's media type": _with(mediaType=DOCKER_MANIFEST),
    },
)
kinds(
    "entry",
    {
        "no platform": _without("platform"),
        "platform null": _with(platform=None),
        "platform empty": _with(platform={}),
        "platform in capitals": _with(platform={"os": "Linux", "architecture": "AMD64"}),
        "platform x86_64": _with(platform={"os": "linux", "architecture": "x86_64"}),
        "platform of variant v1": _with(platform={**PLATFORM, "variant": "v1"}),
        "platform without os": _with(platform={"architecture": "amd64"}),
        "OS beside os": _with(platform={**PLATFORM, "OS": "windows"}),
        "Platform beside platform": _with(Platform={"os": "windows"}),
        "Docker's media type": _with(mediaType=DOCKER_MANIFEST),
        "media type of an index": _with(mediaType=INDEX),
    },
)
kinds(
    "index",
    {
        "no media type": _without("mediaType"),
        "Docker's media type": _with(mediaType=DOCKER_LIST),
        "schemaVersion 1": _with(schemaVersion=1),
        "schemaVersion a text": _with(schemaVersion="2"),
        "twice the same": lambda value: value["manifests"].append(value["manifests"][0]),
        "an entry of null": lambda value: value["manifests"].append(None),
        "an entry of a text": lambda value: value["manifests"].append("x"),
        "manifests null": _with(manifests=None),
        "manifests empty": _with(manifests=[]),
        "manifests an object": _with(manifests={}),
        "no manifests": _without("manifests"),
        "layers": _with(layers=[]),
        "layers null": _with(layers=None),
        "Layers": _with(Layers=[]),
        "config": _with(config={}),
        "fsLayers": _with(fsLayers=[1]),
        "subject": _with(subject={"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}),
        "annotations of numbers": _with(annotations={"a": 1}),
        "member that nobody knows": _with(nobody={"manifests": 1}),
        "an entry of a thing": lambda value: value["manifests"].append(
            {"mediaType": "application/x-thing", "digest": digest(b"thing"), "size": 5}
        ),
    },
)
kinds(
    "index text",
    {
        "manifests twice": _more('"manifests":[]'),
        "Manifests after manifests": _more('"Manifests":[]'),
        "manifests with a long s": _more('"manife\u017fts":[]'),
        "Manifests instead": lambda text: text.replace('"manifests"', '"Manifests"'),
        "MediaType of a manifest": _more(f'"MediaType":"{MANIFEST}"'),
    },
)


def _served(media_type: str) -> Callable[[dict[str, tuple[bytes, str]]], None]:
    def change(served: dict[str, tuple[bytes, str]]) -> None:
        for path, (content, _) in served.items():
            if path.startswith("manifests/"):
                served[path] = content, media_type

    return change


def _lacking(start: str, media_type: str = "") -> Callable[[dict[str, tuple[bytes, str]]], None]:
    def change(served: dict[str, tuple[bytes, str]]) -> None:
        for path, (_, its_type) in list(served.items()):
            if path.startswith(start) and its_type == media_type:
                del served[path]

    return change


kinds(
    "served",
    {
        "media type empty": _served(""),
        "media type of a text": _served("text/plain"),
        "media type of bytes": _served("application/octet-stream"),
        "media type of JSON": _served("application/json"),
        "media type with a parameter": _served(f"{MANIFEST}; charset=utf-8"),
        "media type in capitals": _served(MANIFEST.upper()),
        "media type of an index": _served(INDEX),
        "Docker's media type": _served(DOCKER_MANIFEST),
        "no config": _lacking("blobs/", CONFIG),
        "no layers": _lacking("blobs/", LAYER),
    },
)
