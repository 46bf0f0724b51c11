"""Converts the build context and the Dockerfile of a docker-py build into those of ``docker buildx build``.

docker-py reads both before its call returns. buildx reads them later, and interprets some paths and files differently.
In these cases the content goes to buildx's standard input, so that the result is the same.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from docker import utils

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import values

# Prefixes of remote contexts (docker-py, docker/api/build.py).
_REMOTE = ("http://", "https://", "git://", "github.com/", "git@")

# BuildKit uses the Dockerfile's name as a pattern like those in .dockerignore. So it does not find files with names
# such as "[1]", "!x", "a\b" or "x ".
_FOUND_BY_NAME = re.compile(r"[\w.,@~%=+:-]+( +[\w.,@~%=+:-]+)*")


@dataclass(frozen=True)
class BuildContext:
    """A build context and its Dockerfile.

    Attributes:
        place: absolute path or URL of the context; ``-`` for a context on standard input
        file: absolute path of the Dockerfile, or its path inside a remote or tar context; ``-`` for a Dockerfile on
            standard input; `None` for the default one
        stdin: content for standard input: the context or the Dockerfile
    """

    place: str
    file: str | None = None
    stdin: IO[bytes] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the builder downloads the context."""
        return self.place.startswith(_REMOTE)


def build_context(*, path: object, fileobj: Any, dockerfile: object, custom_context: object) -> BuildContext:
    """Check these options of docker-py's ``build``, and read the files that docker-py would read.

    Args:
        path: a folder, or the address of a remote context
        fileobj: a file that contains the Dockerfile or a tar
        dockerfile: path of the Dockerfile
        custom_context: whether `fileobj` is a tar that contains the whole context

    Raises:
        TypeError: as docker-py raises it: `path` is not a folder, or `custom_context` is set without `fileobj`
        OSError: the Dockerfile is outside the context and cannot be read
        OptionError: a value has the wrong type, or `fileobj` is not a tar
    """
    file = values.string("dockerfile", dockerfile) if dockerfile else None
    if custom_context:
        if not fileobj:
            raise TypeError("You must specify fileobj with custom_context")
        return BuildContext("-", _inside(file), _archive(fileobj))
    if fileobj is not None:
        if file not in (None, "Dockerfile"):
            raise OptionError(
                "dockerfile", "cannot be combined with fileobj, which is the Dockerfile", file, tip="Omit dockerfile."
            )
        # As in docker-py, the context contains only the Dockerfile.
        with utils.mkbuildcontext(fileobj) as made:
            return BuildContext("-", None, _archive(made))
    remote = BuildContext(values.path("path", path), _inside(file))
    return remote if remote.is_remote else _folder(remote.place, file)


def _folder(folder: str, file: str | None) -> BuildContext:
    if not os.path.isdir(folder):
        raise TypeError("You must specify a directory to build in path")
    # buildx could take a relative path for a flag, for standard input ("-") or for a URL.
    folder = os.path.abspath(folder)
    if file is None:
        return BuildContext(folder)
    found = os.path.join(folder, file)
    outside = os.path.relpath(found, folder).startswith(os.pardir)
    # docker-py reads a Dockerfile outside the context itself, and follows symbolic links. buildx does not follow them.
    found_by_name = _FOUND_BY_NAME.fullmatch(os.path.basename(found)) and not _links_to_another_folder(found, folder)
    if outside or (os.path.isfile(found) and not found_by_name):
        return BuildContext(folder, "-", open(found, "rb"))
    return BuildContext(folder, os.path.normpath(found))


def _links_to_another_folder(dockerfile: str, context: str) -> bool:
    # buildx sends only the files below the Dockerfile's folder (moby/buildkit#2119).
    target = Path(os.path.realpath(dockerfile))
    below, inside = (target.is_relative_to(os.path.realpath(each)) for each in (os.path.dirname(dockerfile), context))
    return inside and not below


def _inside(file: str | None) -> str | None:
    # buildx reads "-" as standard input, and an absolute path as a file of this machine.
    return file and ("./-" if file == "-" else file.lstrip("/"))


def _archive(fileobj: Any) -> IO[bytes]:
    """Copy a tar, and make root the owner of all its files.

    The classic builder makes root the owner of the files that it copies. BuildKit keeps the owners in the tar. The copy
    is compressed: buildx mistakes an uncompressed tar that starts with an extended header, as Python writes it, for a
    Dockerfile. buildx also reads the tar after the caller may have closed its file.
    """
    if not hasattr(fileobj, "read"):  # docker-py also accepts bytes and iterables of bytes, as requests does
        fileobj = io.BytesIO(fileobj if isinstance(fileobj, bytes) else b"".join(fileobj))
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it after the build
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
            "fileobj",
            f"must be a tar file, uncompressed or compressed with gzip, bzip2 or xz; it cannot be read: {error}",
        ) from error
    copy.seek(0)
    return copy


def _give_to_root(member: tarfile.TarInfo) -> None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    # tarfile writes the other values of an extended header again from the attributes. A sparse file is written in full.
    member.pax_headers = {name: value for name, value in member.pax_headers.items() if name.startswith("SCHILY.xattr.")}
    if member.isreg():
        member.type = tarfile.REGTYPE
    else:
        member.size = 0
