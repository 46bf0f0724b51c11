"""Merges the programs and links of an image's layers, with whiteouts, replaced files and hard links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_docker_attest.images.executables import Executable
from prefect_docker_attest.images.layer_files import Link
from prefect_docker_attest.images.tar_stream import normal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prefect_docker_attest.images.layer_files import Entry, LayerFiles, Script

# Limits for resolving one path: symbolic links (Linux has the same limit), and path components.
_MOST_LINKS, _LONGEST_WAY = 40, 1000


class Filesystem:
    """The programs, scripts and symbolic links of an image, by their paths. It does not hold other files.

    Args:
        layers: the image's layers, from the lowest to the highest
    """

    def __init__(self, layers: Iterable[LayerFiles]) -> None:
        self._entries: dict[str, Entry] = {}
        for layer in layers:
            self._hide(layer)
            self._add(layer)

    def programs(self) -> Iterator[tuple[str, Executable]]:
        """Yield each program and library with its path."""
        for path, entry in self._entries.items():
            if isinstance(entry, Executable):
                yield path, entry

    def resolve(self, path: str, folder: str = "") -> str:
        """Resolve the symbolic links in a path. A link to nowhere or a circle of links stays unresolved.

        Args:
            path: absolute, or relative to `folder`
            folder: a folder of the image
        """
        left = normal(f"{'' if path.startswith('/') else folder}/{path}").split("/")[::-1]
        real, links = "", 0
        for _ in range(_LONGEST_WAY):
            if not left:
                return real
            name = left.pop()
            if name in ("", "."):
                continue
            if name == "..":
                real = real.rpartition("/")[0]
                continue
            path = f"{real}/{name}" if real else name
            entry = self._entries.get(path)
            if isinstance(entry, Link) and links < _MOST_LINKS:
                links += 1
                left += entry.target.split("/")[::-1]
                real = "" if entry.target.startswith("/") else real
            else:
                real = path
        return real

    def find(self, path: str) -> Executable | Script | None:
        """Return the program or script at a path; `None` for any other file.

        Args:
            path: a path that `resolve` returned
        """
        entry = self._entries.get(path)
        return None if isinstance(entry, Link) else entry

    def in_folders(self, folders: Iterable[str]) -> dict[str, Executable | Script]:
        """Return the programs and scripts in these folders, by their resolved paths."""
        wanted = {self.resolve(folder) for folder in folders}
        found = {}
        for path in self._entries:
            if path.rpartition("/")[0] in wanted:
                real = self.resolve(path)
                entry = self.find(real)
                if entry is not None:
                    found[real] = entry
        return found

    def _hide(self, layer: LayerFiles) -> None:
        """Remove the entries of lower layers that a layer removes or replaces."""
        folders = _ancestors(self._entries)
        # A layer can have a million files, so this keeps only the hashes of known paths.
        known = {*map(hash, self._entries), *map(hash, folders)}
        others = known.intersection(layer.others)
        replaced = others | known.intersection(layer.folders)
        # A layer removes a folder with its content by a whiteout, or by another file with the folder's path.
        emptied = layer.emptied | {
            folder for folder in folders if folder in layer.removed or folder in layer.entries or hash(folder) in others
        }
        for path in list(self._entries):
            hidden = path in layer.removed or hash(path) in replaced
            if hidden or (emptied and not emptied.isdisjoint(_ancestors([path]))):
                del self._entries[path]

    def _add(self, layer: LayerFiles) -> None:
        # A path in a tar can go through a symbolic link of a lower layer: `bin/sh` can mean `usr/bin/sh`.
        real: dict[str, str] = {}
        for path, entry in layer.entries.items():
            folder, slash, name = path.rpartition("/")
            if folder not in real:
                real[folder] = self.resolve(folder)
            path = f"{real[folder]}{slash}{name}" if real[folder] else name  # noqa: PLW2901
            if not isinstance(entry, Link):
                self._entries[path] = entry
            elif not entry.hard:
                self._entries[path] = entry
                real.clear()
            elif target := self.find(self.resolve(entry.target)):
                self._entries[path] = target
            else:
                self._entries.pop(path, None)


def _ancestors(paths: Iterable[str]) -> set[str]:
    """Return all parent folders of these paths, including the root."""
    found = {""}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
