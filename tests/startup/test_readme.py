"""The code blocks of the README, and the job of docs/ci.md, run as by a reader: with a real engine and registry."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engines.published import Published
from support.names import BUSYBOX
from support.prefect_server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.private import Engine, Registry
    from support.environment import Distributions, Environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

NOT_RUN = {
    "scripts/tox -e demo": "it starts engines of its own, for minutes",
    "scripts/tox ": "it runs all tests, this one too",
}
"""Lines of shell blocks that are not run, by their beginning, with the reason."""

# Replaces this Python by a shell, which gets the environment that it has.
SHELL = "import os, sys; os.execvp('bash', ['bash', '-eux', '-c', sys.argv[1]])"

# The command `prefect`: Prefect 3.1 has no `python -m prefect`.
PREFECT = "from prefect.cli import app; app()"

PYTHON = "\nimage.build()\nimage.push()\n"

STEPS = """
import asyncio, sys, yaml
from prefect.deployments.steps.core import run_steps
asyncio.run(run_steps(yaml.safe_load(sys.argv[1])["build"], {}))
"""


def _blocks(language: str, registry: Registry) -> list[str]:
    return [text.replace("registry.example.com", registry.address) for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables for a Prefect server. Without it, some commands would start one of their own."""
    with serving(tmp_path_factory.mktemp("server"), {}) as prefect:
        yield {"PREFECT_API_URL": prefect.url}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: the example of this project."""
    for file in (ROOT / "examples/hello").iterdir():
        shutil.copy(file, tmp_path)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("busybox", BUSYBOX))
    return tmp_path


def test_every_block_is_one_that_is_run_or_a_drawing() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "yaml", "mermaid"}
    assert README.count("```") == 2 * len(BLOCKS)
    assert not re.search(r"^    \S", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    assert all(any(line.startswith(start) for line in lines) for start in NOT_RUN)


@pytest.mark.usefixtures("project", "amd64")
def test_the_commands_work_in_the_order_in_which_they_are_read(
    without_us_yet: Environment,
    distributions: Distributions,
    some_engine: Engine,
    registry: Registry,
    server: dict[str, str],
) -> None:
    lines = [line for block in _blocks("bash", registry) for line in block.splitlines()]
    script = "\n".join(line for line in lines if not line.startswith(tuple(NOT_RUN)))
    environment = without_us_yet
    variables = {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        # pip finds the wheel that was built here, and does not see Prefect, which is linked.
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_FIND_LINKS": str(distributions.wheel.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **server,
        "IMAGE_NAME": f"{registry.address}/app",
        "IMAGE_TAG": "v1",
        "IMAGE_PLATFORM": "linux/amd64",
    }
    pool = environment.run("-c", PREFECT, "work-pool", "create", "demo", "--type=docker", variables=variables)
    assert pool.returncode == 0, pool.stdout + pool.stderr
    done = environment.run("-c", SHELL, script, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert some_engine.host
    assert Published(f"{registry.address}/app:v1").is_one_manifest
    constants, commands = _job(registry)
    done = environment.run("-c", SHELL, "\n".join(commands), variables={**variables, **constants, "IMAGE_TAG": "job"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert Published(f"{constants['IMAGE_NAME']}:job").is_one_manifest


def _job(registry: Registry) -> tuple[dict[str, str], list[str]]:
    """The constant variables of the job in docs/ci.md, and its commands, except those that install and log in."""
    page = (ROOT / "docs/ci.md").read_text(encoding="utf-8").replace("registry.example.com", registry.address)
    found = re.findall(r"^ +(?:- )?run: (?:>-\n)?((?: {10}.*\n)+|.*\n)", page, re.MULTILINE)
    commands = [" ".join(command.split()) for command in found]
    assert [command.split()[0] for command in commands] == [
        *("pip", "echo", "prefect-docker-attest", "python", "prefect-docker-attest")
    ]
    return dict(re.findall(r'^      ([A-Z_]+): "?([^"${\n]+)"?$', page, re.MULTILINE)), commands[2:]


@pytest.mark.usefixtures("project", "some_engine")
def test_the_python_block_builds_an_image_without_attestations(from_wheel: Environment, registry: Registry) -> None:
    (program,) = _blocks("python", registry)
    done = from_wheel.run("-c", program + PYTHON, variables={"TOKEN": "secret"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert Published(f"{registry.address}/app:v1").is_one_manifest


@pytest.mark.usefixtures("project")
def test_the_yaml_block_builds_an_image_without_attestations(
    from_wheel: Environment, some_engine: Engine, registry: Registry, server: dict[str, str]
) -> None:
    (steps,) = _blocks("yaml", registry)
    done = from_wheel.run("-c", STEPS, steps, variables=server)
    assert done.returncode == 0, done.stdout + done.stderr
    some_engine.run("docker", "push", f"{registry.address}/app:v1")
    assert Published(f"{registry.address}/app:v1").is_one_manifest
