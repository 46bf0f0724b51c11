"""A registry that wants a password, and the places where docker's configuration has it."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

from pushing import started_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

USER, PASSWORD = "ada", "s3cret-password"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuUXKlvQTwfK/kphhjbeRlh5zvpJx1LLu\n"  # bcrypt of PASSWORD
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
GIVES_PASSWORD = f"""echo '{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}'"""
"""What a credential helper's script does."""


@contextlib.contextmanager
def guarded_registry(program: str, folder: Path) -> Iterator[str]:
    """The address of a registry that wants the password of the user."""
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "guarded", "path": str(folder / "htpasswd")}}
    with started_registry(program, folder, auth=auth) as address:
        yield address


def write_docker_config(folder: Path, config: Mapping[str, Any]) -> str:
    """Make a folder for DOCKER_CONFIG in this one."""
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text(json.dumps(config))
    return str(folder / "docker")


def write_helper(folder: Path, script: str) -> None:
    """Make this a folder for PATH, with the credential helper `docker-credential-vault`."""
    (folder / "docker-credential-vault").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker-credential-vault").chmod(0o755)
