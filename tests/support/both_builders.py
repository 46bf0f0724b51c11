"""Builds an image with the classic builder or with this package, and reads its files and its config."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from docker.errors import APIError
from prefect.settings import PREFECT_DOCKER_DISABLE_ATTESTATIONS, temporary_settings
from prefect.utilities.dockerutils import docker_client

if TYPE_CHECKING:
    from docker import APIClient

# Files that a build of this run makes are newer than this time.
_STARTED = time.time() - 1
_KINDS = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "device"}
# Members of the config that depend on the builder (Image: the classic builder's last intermediate image), or that only
# Windows uses.
_OF_NO_EFFECT = ("Image", "ArgsEscaped")


class Failed(Exception):
    """A build failed."""


@dataclass(frozen=True)
class Built:
    """The result of a build.

    Attributes:
        image: id of the image in the engine
        events: all events of the build
        files: the files of a container by path, each with its properties, except for the times of folders
        config: the image's config, without empty members
    """

    image: str
    events: list[dict[str, Any]]
    files: dict[str, str]
    config: dict[str, Any]


def build(*, switched_on: bool, **options: Any) -> Built:
    """Build with Prefect's client, with the setting on or off, and read the image.

    Raises:
        Failed: the build failed. Exceptions of the call itself are not changed
    """
    with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: switched_on}), docker_client() as client:
        events = []
        running = client.api.build(**{"decode": True, "nocache": True, "rm": True, "forcerm": True, **options})
        try:
            for event in running:
                events.append(event)
                if "error" in event:
                    raise Failed(event["error"])
        except APIError as error:
            raise Failed(str(error)) from error
        image = [event["aux"]["ID"] for event in events if "ID" in event.get("aux", {})][-1]
        return Built(image, events, _files(client.api, image), _config(client.api, image))


def differences(classic: Built, ours: Built) -> dict[str, tuple[Any, Any]]:
    """Return the differences by path or name: the value of the classic builder, and that of this package."""
    first, second = {**classic.config, **classic.files}, {**ours.config, **ours.files}
    names = sorted(first.keys() | second.keys())
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _files(api: APIClient, image: str) -> dict[str, str]:
    container = api.create_container(image, command=["nothing"])
    try:
        exported = b"".join(api.export(container["Id"]))
    finally:
        api.remove_container(container["Id"], v=True)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        return {f"/{member.name}": _seen(archive, member) for member in archive}


def _seen(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    seen = [_KINDS.get(member.type, "file"), f"{member.mode:04o}", f"{member.uid}:{member.gid}"]
    if member.issym():
        seen.append(f"-> {member.linkname}")
    content: Any = archive.extractfile(member) if member.isreg() or member.islnk() else None
    if content:
        data = content.read()
        seen.append(repr(data.decode("latin-1")) if len(data) < 1000 else hashlib.sha256(data).hexdigest())
        seen.append(f"of {int(member.mtime) if member.mtime < _STARTED else 'now'}")
    return " ".join(seen)


def _config(api: APIClient, image: str) -> dict[str, Any]:
    inspected: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    config = {name: value for name, value in inspected["Config"].items() if value and name not in _OF_NO_EFFECT}
    # Without a working directory, containers start in "/". BuildKit before 0.17 writes it into the config.
    config.setdefault("WorkingDir", "/")
    of_image = {name: inspected.get(name) or None for name in ("Architecture", "Os", "Author", "RepoTags")}
    return {**config, **of_image, "layers": len(inspected["RootFS"].get("Layers") or ())}
