"""A registry that requires a password, and docker configurations with that password."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

from support.pushing import started_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

USER, PASSWORD = "ada", "s3cret-password"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuUXKlvQTwfK/kphhjbeRlh5zvpJx1LLu\n"  # bcrypt of PASSWORD
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
GIVES_PASSWORD = f"""echo '{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}'"""
"""The script of a credential helper that returns the password."""


@contextlib.contextmanager
def guarded_registry(program: str, folder: Path) -> Iterator[str]:
    """Start a registry that requires the password of the user, and give its address."""
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "guarded", "path": str(folder / "htpasswd")}}
    with started_registry(program, folder, auth=auth) as address:
        yield address


def write_docker_config(folder: Path, config: Mapping[str, Any]) -> str:
    """Create a folder for DOCKER_CONFIG in this folder, and return its path."""
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text(json.dumps(config))
    return str(folder / "docker")


def write_helper(folder: Path, script: str) -> None:
    """Write the credential helper `docker-credential-vault` into this folder, which tests add to PATH."""
    (folder / "docker-credential-vault").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker-credential-vault").chmod(0o755)
