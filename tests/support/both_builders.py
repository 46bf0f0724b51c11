"""One build done by docker-py's classic builder, or by the package, and what its image holds and says."""

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

# A time that no build of this run can have made.
_STARTED = time.time() - 1
_KINDS = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "device"}
# What says which builder it was (Image: the classic one's last intermediate image), or speaks to Windows alone.
_OF_NO_EFFECT = ("Image", "ArgsEscaped")


class Failed(Exception):
    """A build that ended in an error."""


@dataclass(frozen=True)
class Built:
    """What came of a build.

    Attributes:
        image: the engine's id of it
        events: all that the build said
        holds: the files of a container, and all that can be seen of each but the time of folders
        says: the image's config, less what is empty
    """

    image: str
    events: list[dict[str, Any]]
    holds: dict[str, str]
    says: dict[str, Any]


def build(*, switched_on: bool, **options: Any) -> Built:
    """Build as Prefect does, with the setting on or off, and look into the image.

    Raises:
        Failed: the build failed; what its call raises is raised as it is
    """
    with temporary_settings({PREFECT_DOCKER_DISABLE_ATTESTATIONS: switched_on}), docker_client() as client:
        events = []
        running = client.api.build(**{"decode": True, "nocache": True, "rm": True, **options})
        try:
            for event in running:
                events.append(event)
                if "error" in event:
                    raise Failed(event["error"])
        except APIError as error:
            raise Failed(str(error)) from error
        image = [event["aux"]["ID"] for event in events if "ID" in event.get("aux", {})][-1]
        return Built(image, events, _holds(client.api, image), _says(client.api, image))


def differences(classic: Built, ours: Built) -> dict[str, tuple[Any, Any]]:
    """What differs, by path or name: the classic builder's, and ours."""
    first, second = {**classic.says, **classic.holds}, {**ours.says, **ours.holds}
    names = sorted(first.keys() | second.keys())
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _holds(api: APIClient, image: str) -> dict[str, str]:
    container = api.create_container(image, command=["nothing"])
    try:
        exported = b"".join(api.export(container["Id"]))
    finally:
        api.remove_container(container["Id"])
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


def _says(api: APIClient, image: str) -> dict[str, Any]:
    inspected: dict[str, Any] = api.inspect_image(image)  # type: ignore[no-untyped-call]
    said = {name: value for name, value in inspected["Config"].items() if value and name not in _OF_NO_EFFECT}
    # Either is where a container starts; BuildKit before 0.17 writes it out.
    said.setdefault("WorkingDir", "/")
    of_image = {name: inspected.get(name) or None for name in ("Architecture", "Os", "Author", "RepoTags")}
    return {**said, **of_image, "layers": len(inspected["RootFS"].get("Layers") or ())}
