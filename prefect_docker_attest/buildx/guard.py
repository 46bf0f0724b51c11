"""Ends a build if the process that started it dies, and removes the build's temporary folder.

Python cannot do this itself: it runs no code after SIGKILL or `os._exit`, and no `finally` of a daemon thread. The
kernel's `PR_SET_PDEATHSIG` sends its signal when the *thread* that started the build ends. So a shell process does it.
It reads a pipe whose write end only the caller has, and reads an end of file when the caller dies.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_docker_attest.names import logger

if sys.platform == "win32":
    from prefect_docker_attest.buildx.job_object import JobObject as _Helper

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_PREFIX = "prefect-docker-attest-build-"


class Guard:
    """A temporary folder for one build, and a helper process that ends the build. A context manager.

    If this process dies inside the context, the helper ends the process of the last `watch`, and removes the folder.
    Nothing happens if a forked child of this process leaves the context. If the helper cannot be started, the build
    runs without it, and the first such build logs a warning.

    Attributes:
        folder: absolute path of the temporary folder; leaving the context removes it
    """

    folder: Path

    def __enter__(self) -> Self:
        self._owner = os.getpid()
        self._released = False
        # Absolute, since the helper's current directory is another one.
        self.folder = Path(os.path.abspath(tempfile.gettempdir()), f"{_PREFIX}{secrets.token_hex(8)}")
        self._helper: _Helper | None = None
        try:
            self._helper = _Helper(self.folder)
        except OSError as error:
            _warn(str(error))
        try:
            self.folder.mkdir(mode=0o700)
        except OSError:
            # Another program may own the folder, so the helper must not remove it.
            if self._helper:
                self._helper.dismiss()
                self._helper.close()
            raise
        return self

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """End a process if this one dies. On POSIX the process must lead a process group; the whole group is ended."""
        if self._helper:
            try:
                self._helper.watch(process)
            except OSError as error:
                _warn(str(error))

    def release(self) -> None:
        """Stop watching the process. Call it before the process is reaped: after that, its number can be reused."""
        self._released = True
        if self._helper:
            self._helper.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() != self._owner:
            return
        # Ctrl-C inside Popen can leave a process that Python does not know. The helper finds and ends it.
        interrupted = kind is not None and not issubclass(kind, Exception) and not self._released
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._helper and not interrupted:
                self._helper.dismiss()
        finally:
            # If Ctrl-C came before the folder was removed, the helper removes it.
            if self._helper:
                self._helper.close()


@cache
def _warn(reason: str) -> None:
    logger.warning(
        "Image builds are not guarded: %s. A build continues if this process is killed.",
        reason,
    )


if sys.platform != "win32":
    # Each line of standard input is the number of the process group to end; an empty line means none. At the end of
    # file the group gets a SIGTERM, and a SIGKILL after 2 seconds. The folder is removed last, because the group may
    # write to it. If the caller died before it wrote the number, the shell searches Linux's /proc for a command line
    # that contains the folder. It repeats the search, because a process that is just starting has no command line yet.
    # `kill -s` needs "--" in dash, and fails with it in busybox. busybox's grep needs `-z` to read all arguments.
    _SCRIPT = """
trap '' HUP INT TERM
dashes=--
kill -s 0 -- $$ || dashes=
group=unknown
while read -r line; do group=$line; done
tries=0
while [ "$group" = unknown ] && [ "$tries" -lt 5 ]; do
    for file in $(grep -lszF -e "$1" /proc/[0-9]*/cmdline); do
        number=${file#/proc/}
        number=${number%/cmdline}
        if [ "$number" != $$ ] && kill -s 0 $dashes "-$number"; then group=$number; fi
    done
    tries=$((tries + 1))
    [ "$group" != unknown ] || sleep 0.1
done
if [ "$group" ] && [ "$group" != unknown ]; then
    kill -s TERM $dashes "-$group"
    tries=0
    while kill -s 0 $dashes "-$group" && [ "$tries" -lt 44 ]; do
        [ "$tries" != 40 ] || kill -s KILL $dashes "-$group"
        tries=$((tries + 1))
        sleep 0.05
    done
fi
rm -rf -- "$1"
"""

    _SHELL = "/bin/sh"

    _write_ends: set[int] = set()

    def _close_write_ends() -> None:
        while _write_ends:
            os.close(_write_ends.pop())

    # If a forked child kept a write end, the helper would not notice that the parent died.
    os.register_at_fork(after_in_child=_close_write_ends)

    class _Helper:
        """The shell process.

        Args:
            folder: the folder that the shell removes

        Raises:
            OSError: the shell cannot be started
        """

        def __init__(self, folder: Path) -> None:
            read_end, self._write_end = os.pipe()
            _write_ends.add(self._write_end)
            try:
                self._shell = subprocess.Popen(
                    [_SHELL, "-c", _SCRIPT, "sh", str(folder)],
                    stdin=read_end,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    # `rm` and `sleep` need PATH. Other variables are not passed, because they can be secrets.
                    env={"PATH": os.pathsep.join(filter(None, (os.defpath, os.environ.get("PATH"))))},
                    start_new_session=True,
                )
            except BaseException:
                self._close_write_end()
                raise
            finally:
                os.close(read_end)

        def watch(self, process: subprocess.Popen[bytes]) -> None:
            self._tell(process.pid)

        def release(self) -> None:
            self._tell("")

        def _tell(self, group: int | str) -> None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed the shell
                os.write(self._write_end, f"{group}\n".encode())

        def dismiss(self) -> None:
            self._shell.kill()

        def close(self) -> None:
            self._close_write_end()
            self._shell.wait()

        def _close_write_end(self) -> None:
            _write_ends.discard(self._write_end)
            os.close(self._write_end)
