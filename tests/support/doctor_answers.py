"""Answers to the doctor's questions, for tests of its checks."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from prefect_docker_attest.doctor.activation import PrefectCommand
from prefect_docker_attest.doctor.answers import Answer, Answers
from prefect_docker_attest.doctor.checkup import start_checks
from prefect_docker_attest.doctor.engine_facts import EngineFacts
from prefect_docker_attest.doctor.prefect_facts import PrefectFacts

if TYPE_CHECKING:
    from prefect_docker_attest.doctor.check import Finding

INSPECT = """Name:          {name}
Driver:        {driver}

Nodes:
Name:      node0
Status:    {status}
Platforms: linux/amd64*, linux/amd64/v2, linux/386{more}
"""
ENGINE = {"ID": "one", "Os": "linux", "Arch": "amd64", "Name": "here", "ServerVersion": "28.5.2", "Driver": "overlayfs"}
ON = PrefectFacts(settings={"disable_attestations": True}, sources={"disable_attestations": "environment"})


class Late:
    """Stands for an answer that does not arrive."""


def answer(value: Any) -> Answer[Any]:
    """Return an answer that has arrived, has failed if it is an exception, or never arrives if it is `Late`."""
    future: Future[Any] = Future()
    if isinstance(value, BaseException):
        future.set_exception(value)
    elif value is not Late:
        future.set_result(value)
    return Answer(future, 0, "it took longer than 30 s")


def findings(**changes: Any) -> dict[str, Finding]:
    """Return the results of all checks for a healthy setup with these other answers. `engine` can be its response."""
    values: dict[str, Any] = {
        "docker_py": "",
        "prefect": ON,
        "command": PrefectCommand(None, None),
        "cli": "Docker version 28.5.2, build ecc6942",
        "buildx": "github.com/docker/buildx v0.29.1 abcdef",
        "folder": "",
        "api_version": "",
        "cli_engine": "one",
        "build_engine": "one",
        "builder": INSPECT.format(name="default", driver="docker", status="running", more=", linux/arm64"),
        "engine": ENGINE,
        **changes,
    }
    if isinstance(values["engine"], dict):
        values["engine"] = EngineFacts.of_responses(values["engine"], {})
    files = {path: answer(value) for path, value in values.pop("files", {}).items()}
    arrived: dict[str, Any] = {name: answer(value) for name, value in values.items()}
    answers = Answers(limit=30, files=files, **arrived)
    running = start_checks(answers)
    return {name: finding for name, future in running.items() if (finding := future.result())}
