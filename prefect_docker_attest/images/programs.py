"""Compares the programs in an image with the image's platform.

An image can name amd64 and hold programs for arm64: its base image exists for arm64 only, a program was copied from
the build machine, or the classic builder used the wrong base image. Clusters then report ``exec format error``.
Emulators and cross compilers contain programs for other processors on purpose. So only the programs that the image
starts decide: the entry point with its loader, and the commands on ``PATH``.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from itertools import dropwhile
from typing import TYPE_CHECKING

from prefect_docker_attest.images.executables import Executable
from prefect_docker_attest.images.filesystem import Filesystem
from prefect_docker_attest.images.layer_files import Script
from prefect_docker_attest.images.result import Programs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from prefect_docker_attest.images.documents import Config
    from prefect_docker_attest.images.layer_files import LayerFiles
    from prefect_docker_attest.platforms import Platform

UNCHECKED = Programs("unchecked", {}, (), "")
"""The result for an image whose layers were not read."""

MEMORY = 16 << 20
"""Memory for the programs and links of one image, in bytes. An image of 1 GB uses a tenth of it."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # moby, oci/defaults.go
_SHELLS = {"sh", "ash", "bash", "dash", "zsh"}
# Programs whose arguments are the command line of another program.
_LAUNCHERS = {"catatonit", "docker-init", "dumb-init", "env", "gosu", "nice", "nohup", "setpriv", "su-exec", "tini"}
# Processors that also run programs of another one. arm64 is not here: many arm64 processors no longer run arm.
_ALSO_RUN = {"amd64": "386"}
_OTHER_FORMATS = ("linux", "darwin", "windows")  # systems whose programs are always recognised
_ASSIGNMENT = re.compile(r"\w+=")
_EXAMPLES, _DEEPEST = 5, 8  # example paths in the result; nested launchers and scripts


def check_programs(platform: Platform | None, config: Config, layers: Sequence[LayerFiles]) -> Programs:
    """Compare an image's programs with its platform.

    Args:
        platform: platform of the image; `None` if the image names none
        config: config of the image
        layers: layers of the image, from the lowest to the highest
    """
    if not all(layer.complete for layer in layers):
        return Programs("unknown", {}, (), "not all of its layers could be read as a tar")
    files = Filesystem(layers)
    programs = dict(files.programs())
    counts = dict(Counter(program.platform for program in programs.values()).most_common())
    if not programs:
        return Programs("none", {}, (), "")
    if platform is None:
        return Programs("unknown", counts, (), f"the image names no platform; its programs are for {', '.join(counts)}")
    others = {path for path, program in programs.items() if not _runs(program, platform)}
    started = next(filter(others.__contains__, _started(config, files)), None)
    if started:
        reason = f"; the image starts /{started}, which is for {programs[started].platform}"
        return Programs("wrong", counts, *_summary(others, programs, platform, reason))
    if _most_are_others(config, files, platform):
        return Programs("wrong", counts, *_summary(others, programs, platform))
    return _with_foreign(platform, programs, others, counts)


def _with_foreign(
    platform: Platform, programs: dict[str, Executable], others: Collection[str], counts: dict[str, int]
) -> Programs:
    # Programs for another operating system count as data: some Python packages contain programs for Windows.
    foreign = [path for path in others if programs[path].system == platform.os]
    return (
        Programs("mixed", counts, *_summary(foreign, programs, platform))
        if foreign
        else Programs("right", counts, (), "")
    )


def _summary(
    paths: Collection[str], programs: dict[str, Executable], platform: Platform, reason: str = ""
) -> tuple[tuple[str, ...], str]:
    """Return example paths, and a sentence about the programs for other platforms."""
    # Programs come before libraries, because users know them better.
    ordered = sorted(paths, key=lambda path: (".so" in path, path.count("/"), path))
    platforms = " and ".join(sorted({programs[path].platform for path in paths}))
    number = f"{len(paths)} of {len(programs)} programs are for {platforms}, not for {platform}"
    examples = tuple(f"/{path}" for path in ordered[:_EXAMPLES])
    return examples, f"{number}, e.g. {examples[0]}{reason}"


def _runs(program: Executable, platform: Platform) -> bool:
    processors = {platform.architecture, _ALSO_RUN.get(platform.architecture)}
    # Other Unix systems use the format of Linux, often without the mark of the system.
    runs_elf = program.system == "linux" and platform.os not in _OTHER_FORMATS
    return (program.system == platform.os or runs_elf) and not processors.isdisjoint(program.processor.split("+"))


def _most_are_others(config: Config, files: Filesystem, platform: Platform) -> bool:
    """Whether most commands on PATH are for another platform. Without a command on PATH, all programs count."""
    commands = [entry for entry in files.in_folders(_path(config)).values() if isinstance(entry, Executable)]
    commands = commands or [program for _, program in files.programs()]
    return 2 * sum(not _runs(program, platform) for program in commands) > len(commands)


def _path(config: Config) -> list[str]:
    variables = dict(variable.partition("=")[::2] for variable in config.environment)
    return (variables.get("PATH") or _DEFAULT_PATH).split(":")


def _started(config: Config, files: Filesystem) -> Iterator[str]:
    """Yield the paths of the programs that the image starts, and of their loaders."""
    words = [*config.entrypoint, *config.command]
    folder, path = config.working_directory or "/", _path(config)
    for _ in range(_DEEPEST):
        start = _find(words[0], folder, path, files) if words else None
        if start is None:
            return
        real, entry = start
        if isinstance(entry, Script):
            words = [*entry.interpreter, f"/{real}", *words[1:]]
            continue
        yield real
        if entry.loader:
            yield files.resolve(entry.loader)
        words, is_exact = _launched(words)
        while not is_exact and len(words) > 1 and _find(words[0], folder, path, files) is None:
            words = words[1:]  # an argument of the launcher itself, such as a user or a number


def _find(word: str, folder: str, path: Sequence[str], files: Filesystem) -> tuple[str, Executable | Script] | None:
    candidates = [word] if "/" in word else [f"{directory}/{word}" for directory in path]
    for candidate in candidates:
        real = files.resolve(candidate, folder)
        entry = files.find(real)
        if entry is not None:
            return real, entry
    return None


def _launched(words: Sequence[str]) -> tuple[list[str], bool]:
    """Return the command that a shell or a launcher starts, and whether it begins with the first word.

    The command is empty if the arguments do not show it.
    """
    name, arguments = words[0].rpartition("/")[2], [*words[1:]]
    if name in _SHELLS:
        return _in_shell(arguments), True
    if name not in _LAUNCHERS:
        return [], True
    if "--" in arguments:
        return arguments[arguments.index("--") + 1 :], True
    return [*dropwhile(lambda word: word.startswith("-") or _ASSIGNMENT.match(word), arguments)], False


def _in_shell(arguments: Sequence[str]) -> list[str]:
    """Return the first command of ``-c COMMANDS``."""
    if not arguments or not re.fullmatch(r"-\w*c", arguments[0]):
        return []
    try:
        words = shlex.split(" ".join(arguments[1:2]), comments=True)
    except ValueError:
        return []
    return [*dropwhile(_ASSIGNMENT.match, words[1:] if words[:1] == ["exec"] else words)][:1]
