"""Copies the configuration of this machine's apt, pip and uv to a bare machine in a folder.

It copies package indexes, proxies and certificates. Values that name missing files are left out.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
from pathlib import Path

from engines import machine

_COPIED = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d",
    "/etc/uv/uv.toml",
    "~/.config/uv/uv.toml",
    "/usr/local/share/ca-certificates",
)
_PIP = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_APT = re.compile(r"^Acquire::(?:https?|Check-\S+|Retries|Force\S+)\b.*;$", re.MULTILINE)

_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_VARIABLES = {"CI", "TERM", "NO_COLOR", "SSL_CERT_DIR", *_CERTIFICATES, *_PROXIES, *map(str.upper, _PROXIES)}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def configure(root: Path) -> None:
    """Write the configuration of the installers on the machine in `root`.

    Raises:
        CommandFailed: `apt-config` fails.
    """
    certificates = [os.environ[name] for name in _CERTIFICATES if name in os.environ]
    for name in (*_COPIED, *certificates):
        source, target = Path(name).expanduser(), _place(root, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)
    settings = "\n".join(_APT.findall(machine.run(["apt-config", "dump"]).stdout))
    (root / "etc/apt/apt.conf.d/99host").write_text(f"{settings}\n")
    for name in _PIP:
        _configure_pip(root, name)


def _configure_pip(root: Path, name: str) -> None:
    parser = configparser.RawConfigParser()
    if not parser.read(Path(name).expanduser()):
        return
    for section in parser.values():
        for key, value in list(section.items()):
            section[key] = _without_missing_files(root, value)
            if not section[key]:
                del section[key]
    target = _place(root, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w") as file:
        parser.write(file)


def environment(root: Path) -> dict[str, str]:
    """Return the environment variables for a command on the machine in `root`."""
    variables = {
        name: _without_missing_files(root, value)
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(("PIP_", "UV_"))
    }
    given = {name: value for name, value in variables.items() if value}
    return {"TERM": "dumb", **given, "HOME": "/root", "LANG": "C.UTF-8", "PATH": _PATH}


def _place(root: Path, name: str) -> Path:
    """Return the path of a file on the machine in `root`. `~` means the home folder of root there."""
    return root / name.replace("~", "root").lstrip("/")


def _without_missing_files(root: Path, value: str) -> str:
    """Return a value without the paths and `file:` addresses that the machine in `root` does not have."""
    paths = {word: word.removeprefix("file://") for word in value.split()}
    return " ".join(word for word, path in paths.items() if not path.startswith("/") or _place(root, path).exists())
