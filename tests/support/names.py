"""The names that tests use in an engine. An existing engine can have names of other programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from engines.existing import PREFIX

__all__ = ["BUSYBOX", "CONTEXTS", "PREFIX"]

BUSYBOX = os.environ.get("TESTS_BASE_IMAGE", "busybox")
"""The base image of all builds. Private engines pull it from their mirror of Docker Hub."""

CONTEXTS = Path(__file__).parent / "contexts"
"""The folder of build contexts. If the base image has another name, this is a copy with that name."""

if BUSYBOX != "busybox":
    _copies = tempfile.TemporaryDirectory()
    CONTEXTS = Path(shutil.copytree(CONTEXTS, f"{_copies.name}/contexts", symlinks=True))
    for _dockerfile in CONTEXTS.rglob("*Dockerfile"):
        _text = _dockerfile.read_bytes()
        _dockerfile.write_bytes(_text.replace(b"busybox", BUSYBOX.encode()))
