"""The answers that the doctor's checks wait for."""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from prefect_docker_attest.buildx.builder import Builder
from prefect_docker_attest.doctor.check import NoAnswerError, SeeOther
from prefect_docker_attest.doctor.docker_commands import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.doctor.activation import PrefectCommand
    from prefect_docker_attest.doctor.check import Finding
    from prefect_docker_attest.doctor.engine_facts import EngineFacts
    from prefect_docker_attest.doctor.prefect_facts import PrefectFacts

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """An answer that may not have arrived yet.

    Attributes:
        future: the answer
        end: when to stop waiting for it, on the clock of `time.monotonic`
        late: what to say then
    """

    future: Future[T]
    end: float
    late: str

    def result(self) -> T:
        """Wait for the answer, and return it.

        Raises:
            NoAnswerError: the answer does not arrive in time
            Exception: the exception of the function that looks for the answer
        """
        if not wait([self.future], max(0, self.end - time.monotonic())).done:
            raise NoAnswerError(self.late)
        return self.future.result()


@dataclass(frozen=True)
class Answers:
    """The answers to the questions of the doctor, and the results of its checks.

    Attributes:
        limit: seconds after which an answer is not waited for
        files: whether each settings file can be read, by path; raises `setting_files.UnreadableError`
        docker_py: why docker-py cannot be imported; ``""`` if it can
        prefect: facts about Prefect; raises `setting_files.UnreadableError`
        command: the command `prefect` on ``PATH``
        cli: output of ``docker --version``; raises `docker_commands.CommandError`, as the following ones do
        buildx: output of ``docker buildx version``
        folder: why buildx cannot write its files; ``""`` if it can
        api_version: the engine's error if it refuses the variable DOCKER_API_VERSION; otherwise ``""``
        cli_engine: identifier of the docker CLI's engine
        build_engine: identifier of the engine in which this package builds
        builder: output of ``docker buildx inspect``
        engine: docker-py's engine; raises what `engine_facts.ask_engine` raises
        findings: results of the checks, by name
    """

    limit: int
    files: Mapping[str, Answer[None]]
    docker_py: Answer[str]
    prefect: Answer[PrefectFacts]
    command: Answer[PrefectCommand]
    cli: Answer[str]
    buildx: Answer[str]
    folder: Answer[str]
    api_version: Answer[str]
    cli_engine: Answer[str]
    build_engine: Answer[str]
    builder: Answer[str]
    engine: Answer[EngineFacts]
    findings: dict[str, Future[Finding | None]] = field(default_factory=dict)

    @property
    def more_time(self) -> str:
        """What to type if something is only slow."""
        return f"`--timeout {2 * self.limit}`"

    def require(self, name: str) -> None:
        """Wait for a check that must not have found a problem.

        Raises:
            SeeOther: it has found a problem, or it is not known whether there is one
        """
        finding = self.findings[name].result()
        if finding and finding.status in ("problem", "skipped"):
            raise SeeOther(name)
        if finding and finding.status == "unknown":
            raise SeeOther(name, "unknown")

    def podman_builds(self) -> str:
        """Wait for the engine, and return the version of Podman if it is Podman and its own builder builds images.

        ``""`` means that this is not so, or is not known.
        """
        try:
            podman = self.engine.result().podman
        except Exception:  # the check `engine` shows it
            return ""
        try:
            builder = Builder.parse(self.builder.result()) if podman else None
        except (CommandError, NoAnswerError):
            return podman
        return "" if builder and builder.is_outside else podman

    def settings(self) -> BuildSettings | None:
        """Wait for the settings, and return them; `None` if they are not known, which the check ``setting`` shows."""
        try:
            facts = self.prefect.result()
        except Exception:
            return None
        return None if facts.import_error or facts.settings_error else facts.values

    def buildx_builds_all(self) -> bool | None:
        """Wait for the settings, and return whether they make buildx build every image; `None` if this is not known."""
        settings = self.settings()
        return None if settings is None else bool(settings.variables())
