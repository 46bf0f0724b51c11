"""The build context and Dockerfile of docker-py's ``build``, as ``docker buildx build`` is given them.

docker-py has read both when its call returns, buildx reads them later and by rules of its own. What these rules would
change goes to buildx's standard input in a form that they leave alone.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass
from typing import IO, Any

from docker import utils

from prefect_docker_attest import options
from prefect_docker_attest.errors import OptionError

# What starts with one of these is remote (docker-py, docker/api/build.py).
_REMOTE = ("http://", "https://", "git://", "github.com/", "git@")

# BuildKit looks a Dockerfile up by a pattern like those of .dockerignore, which finds no "[1]", "!x", "a\b" or "x ".
_FOUND_BY_NAME = re.compile(r"[\w.,@~%=+:-]+( +[\w.,@~%=+:-]+)*")


@dataclass(frozen=True)
class BuildContext:
    """What is built.

    Attributes:
        place: an absolute path, a URL, or ``-`` for what comes on standard input
        file: the Dockerfile's absolute path, its place in a remote or tar context, or ``-``
        stdin: the one of the two that comes on standard input
    """

    place: str
    file: str | None = None
    stdin: IO[bytes] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the builder fetches it."""
        return self.place.startswith(_REMOTE)


def read(*, path: object, fileobj: Any, dockerfile: object, custom_context: object) -> BuildContext:
    """Check and read what docker-py checks and reads at its call.

    Args:
        path: a folder, or the address of a remote context
        fileobj: a file with the Dockerfile, or with a tar
        dockerfile: the Dockerfile's place
        custom_context: whether `fileobj` is a tar with all of the context

    Raises:
        TypeError: as docker-py raises it: a path that is no folder, a custom context without its tar
        OSError: a Dockerfile outside the context that cannot be read
        OptionError: a value of another kind than needed
    """
    file = options.text("dockerfile", dockerfile) if dockerfile else None
    if custom_context:
        if not fileobj:
            raise TypeError("You must specify fileobj with custom_context")
        return BuildContext("-", _inside(file), _archive(fileobj))
    if fileobj is not None:
        if file not in (None, "Dockerfile"):
            raise OptionError("dockerfile", "with fileobj, that file is the Dockerfile. Leave dockerfile out", file)
        # docker-py's own: the Dockerfile is all that there is in the context.
        with utils.mkbuildcontext(fileobj) as made:
            return BuildContext("-", None, _archive(made))
    remote = BuildContext(options.path("path", path), _inside(file))
    return remote if remote.is_remote else _folder(remote.place, file)


def _folder(folder: str, file: str | None) -> BuildContext:
    if not os.path.isdir(folder):
        raise TypeError("You must specify a directory to build in path")
    # An absolute one cannot be taken for a flag, for standard input ("-") or for an address.
    folder = os.path.abspath(folder)
    if file is None:
        return BuildContext(folder)
    found = os.path.join(folder, file)
    outside = os.path.relpath(found, folder).startswith(os.pardir)
    # One outside is read by docker-py itself, through symbolic links, which buildx neither follows nor counts in "..".
    if outside or (os.path.isfile(found) and not _FOUND_BY_NAME.fullmatch(os.path.basename(found))):
        return BuildContext(folder, "-", open(found, "rb"))
    return BuildContext(folder, os.path.normpath(found))


def _inside(file: str | None) -> str | None:
    # To buildx, "-" is standard input, and an absolute path one of this machine.
    return file and ("./-" if file == "-" else file.lstrip("/"))


def _archive(fileobj: Any) -> IO[bytes]:
    """A copy of a tar, whose files are root's: the classic builder gives all that it copies to root, BuildKit does not.

    It is compressed, since buildx takes a plain tar that begins with an extended header, as those of Python do, for a
    Dockerfile. And being a copy, it outlives the caller's file.
    """
    if not hasattr(fileobj, "read"):  # docker-py takes what requests can send
        fileobj = io.BytesIO(fileobj if isinstance(fileobj, bytes) else b"".join(fileobj))
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 it is closed with the build
    try:
        with (
            tarfile.open(fileobj=fileobj, mode="r|*") as given,
            tarfile.open(fileobj=copy, mode="w:gz", compresslevel=1) as made,
        ):
            for member in given:
                _give_to_root(member)
                made.addfile(member, given.extractfile(member) if member.isreg() else None)
    except tarfile.TarError as error:
        raise OptionError(
            "fileobj", f"it is no tar that can be read, plain or compressed by gzip, bzip2 or xz: {error}"
        ) from error
    copy.seek(0)
    return copy


def _give_to_root(member: tarfile.TarInfo) -> None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    # What else stands in an extended header is written anew from the attributes; and of a sparse file, all of it.
    member.pax_headers = {name: value for name, value in member.pax_headers.items() if name.startswith("SCHILY.xattr.")}
    if member.isreg():
        member.type = tarfile.REGTYPE
    else:
        member.size = 0
