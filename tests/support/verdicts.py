"""Compares the verdicts of `inspect` with those of engines, for images that differ from a sound image in one way."""

from __future__ import annotations

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker
from docker import errors

from prefect_docker_attest.images.inspections import inspect_images
from prefect_docker_attest.terminal import Bars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.private import Engine
    from support.memory_registry import MemoryRegistry
    from support.mutations import Draft

_PULLS = 4  # at the same time
_numbers = itertools.count()


@dataclass(frozen=True)
class Verdict:
    """What `inspect` and an engine say about one image.

    Attributes:
        state: state of the image; ``error`` if it could not be inspected
        detail: why it is not ``sound``
        refusal: why the engine refuses the image; ``""`` if it pulls the image
    """

    state: str
    detail: str
    refusal: str

    @property
    def disagrees(self) -> bool:
        """Whether a sound image is refused, or a corrupt image is pulled."""
        return self.state == ("sound" if self.refusal else "corrupt")

    @property
    def is_undecided(self) -> bool:
        """Whether `inspect` does not judge an image that the engine pulls."""
        return not self.refusal and self.state in ("unverifiable", "error")


def verdicts(drafts: Mapping[str, Draft], engine: Engine, registry: MemoryRegistry) -> dict[str, Verdict]:
    """Make images, let an engine pull them, and inspect them.

    Args:
        drafts: the drafts of the images, by any names
        engine: the engine that pulls them
        registry: serves the images
    """
    repositories = {name: f"k{next(_numbers)}" for name in drafts}
    for name, draft in drafts.items():
        registry.images[repositories[name]] = draft.make()
    references = {f"{registry.address}/{repository}:v1": name for name, repository in repositories.items()}
    with ThreadPoolExecutor(_PULLS) as pulls:
        refusals = {references[name]: pulls.submit(refusal, engine, name) for name in references}
        results = inspect_images(list(references), Bars().meter, engine=False, verify_layers=True)
        inspected = {references[result.reference]: result for result in results}
    found = {}
    for name, result in inspected.items():
        assert "bug" not in result.error, (name, result.error)
        inspection = result.inspection
        state, detail = (inspection.state, inspection.images[0].detail) if inspection else ("error", result.error)
        found[name] = Verdict(state, detail, refusals[name].result())
    for repository in repositories.values():
        del registry.images[repository]
    return found


def refusal(engine: Engine, name: str) -> str:
    """Return why an engine does not pull an image; ``""`` if it does. The image is removed again."""
    client: Any = docker.APIClient(base_url=engine.host, timeout=120)
    try:
        lines = list(client.pull(name, stream=True, decode=True))
        failure = next((str(line["error"]) for line in lines if "error" in line), "")
        if not failure:
            client.inspect_image(name)
    except errors.APIError as error:
        failure = str(error)
    with contextlib.suppress(errors.APIError):
        client.remove_image(name, force=True)
    client.close()
    return failure
