"""The doctor's checks of the settings: their values, their sources, and whether Docker supports them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_docker_attest.doctor.check import Finding, NoAnswerError, SeeOther, first_line
from prefect_docker_attest.doctor.docker_checks import MORE_PLATFORMS, builder_of
from prefect_docker_attest.doctor.prefect_facts import PrefectFacts
from prefect_docker_attest.doctor.python_checks import of_prefect
from prefect_docker_attest.doctor.setting_files import UnreadableError
from prefect_docker_attest.layer_compression import GZIP, Compression
from prefect_docker_attest.names import SELECT_BUILDER, SETTING, variable
from prefect_docker_attest.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect_docker_attest.build_settings import BuildSettings
    from prefect_docker_attest.doctor.answers import Answer, Answers
    from prefect_docker_attest.doctor.engine_facts import EngineFacts

_CONTAINERD = "Use the containerd image store (https://docs.docker.com/engine/storage/containerd/)"


def setting(answers: Answers) -> Finding:
    """Check that Prefect can read its settings, and that `SETTING` is on."""
    if unreadable := list(filter(None, map(_unreadable, answers.files.values()))):
        advice = "Prefect waits for this file at every start. Replace it, or unmount its folder."
        return Finding("problem", f"Prefect cannot read a settings file: {'; '.join(unreadable)}", advice)
    facts = of_prefect(answers)
    if facts.settings_error:
        advice = "`prefect config view` shows the error. Fix .env, prefect.toml, pyproject.toml or the profiles."
        return Finding(
            "problem",
            facts.settings_error,
            "Set it to true or false, or unset it." if facts.refuses_value else advice,
        )
    source = facts.sources["disable_attestations"]
    if facts.values.disable_attestations and not facts.is_loaded:
        return Finding("problem", f"{SETTING} is on ({source}), but has no effect: see package")
    if facts.values.disable_attestations:
        return Finding("ok", f"{SETTING} is on ({source})")
    return _off(facts, source)


def _off(facts: PrefectFacts, source: str) -> Finding:
    """Return the warning that the setting is off, with the places where it is on, but has no effect."""
    found = f"{SETTING} is off ({source})"
    advice = f"`export {SETTING}=true`\nor `prefect config set {SETTING}=true`"
    if facts.overridden:
        found += f". It is on in {', '.join(facts.overridden)}, which the {source} overrides"
    if facts.profiles:
        use = "export PREFECT_PROFILE=" if os.environ.get("PREFECT_PROFILE") else "prefect profile use "
        found += f". It is on in the profile {', '.join(map(repr, facts.profiles))}, which is not active"
        advice += f"\nor `{use}{facts.profiles[0]}`"
    return Finding("warning", found, advice)


def misspelled(answers: Answers) -> Finding | None:
    """Check that there are no settings with names that are almost right; `None` if there are none."""
    names = _known(answers).misspelled
    if not names:
        return None
    wrong = "; ".join(f"{name} has no effect: the name is {right}" for name, right in names.items())
    return Finding("warning", wrong, "Correct the name, or remove it.")


def _known(answers: Answers) -> PrefectFacts:
    """Return the facts about Prefect; facts about nothing if they are not known, which the check `setting` shows."""
    try:
        return of_prefect(answers)
    except (SeeOther, NoAnswerError, UnreadableError):
        return PrefectFacts()


def _unreadable(file: Answer[None]) -> str:
    """Return why Prefect cannot read a settings file; ``""`` if it can."""
    try:
        file.result()
    except (UnreadableError, NoAnswerError) as error:
        return str(error)
    return ""


def build_settings(answers: Answers) -> Finding | None:
    """Check the values of the other settings, and whether Docker supports them; `None` if none of them is set."""
    current = _known(answers)
    if not current.values.defaults:
        return None
    if current.build_error:
        return Finding("problem", first_line(current.build_error), "Correct or unset the setting: docs/settings.md.")
    try:
        answers.require("engine")
        answers.require("builder")
    except SeeOther as other:
        return Finding(other.status, f"{_shown(current)}; whether Docker supports them: {other}")
    if podman := answers.podman_builds():
        return _on_podman(current, podman)
    builder, engine = builder_of(answers), answers.engine.result()
    setup = _Setup(current.values, engine, builder.is_engine, builder.platforms)
    for rule in _RULES:
        if finding := rule(setup):
            return Finding(finding.status, f"{_shown(current)}: {finding.found}", finding.advice)
    return Finding("ok", _shown(current))


def _on_podman(current: PrefectFacts, podman: str) -> Finding:
    if not current.for_buildkit:
        return Finding("ok", _shown(current))
    names = ", ".join(current.for_buildkit)
    advice = f"Unset {names}, or {SELECT_BUILDER}."
    return Finding("problem", f"{_shown(current)}: Podman {podman} does not support {names}", advice)


def _shown(current: PrefectFacts) -> str:
    # The values of caches are not shown: they are long, and can contain secrets.
    values = {name: f"={getattr(current.values, name)}" for name in ("platform", "media_types", "compression")}
    return ", ".join(
        f"{variable(name)}{values.get(name, '')} ({current.sources[name]})" for name in current.values.defaults
    )


@dataclass(frozen=True)
class _Setup:
    settings: BuildSettings
    engine: EngineFacts
    in_engine: bool
    """Whether the builder is the engine's own."""
    platforms: tuple[Platform, ...]
    """Platforms of the builder."""

    @property
    def pushes_elsewhere(self) -> bool:
        """Whether a builder outside the engine pushes images itself."""
        return self.settings.push_from_builder and not self.in_engine

    @property
    def adds_attestations(self) -> bool:
        """Whether an image keeps attestations on its way to the registry, and the settings do not disable them."""
        keeps = self.engine.uses_containerd_store and self.in_engine
        return (keeps or self.pushes_elsewhere) and not self.settings.disable_attestations


def _media_types(setup: _Setup) -> Finding | None:
    if setup.settings.media_types == "oci" and not setup.engine.uses_containerd_store and not setup.pushes_elsewhere:
        return Finding("problem", "this image store pushes only Docker's media types", f"{_CONTAINERD}.")
    return None


def _compression(setup: _Setup) -> Finding | None:
    if not setup.settings.compression or setup.engine.uses_containerd_store or setup.pushes_elsewhere:
        return None
    if Compression.of_user(setup.settings.compression) == GZIP:
        return None
    return Finding(
        "problem", "this image store pushes only layers that it compresses itself with gzip", f"{_CONTAINERD}."
    )


def _cache(setup: _Setup) -> Finding | None:
    exports = [entry for entry in setup.settings.cache_to.split() if "type=inline" not in entry]
    if exports and setup.in_engine and not setup.engine.uses_containerd_store:
        return Finding("problem", "this builder cannot write a cache", f"{_CONTAINERD}, or type=inline.")
    return None


def _attestations(setup: _Setup) -> Finding | None:
    if not setup.adds_attestations:
        return None
    if setup.settings.media_types == "docker" and setup.in_engine:
        return Finding("problem", "attestations need OCI media types", f"Set {SETTING}=true.")
    if setup.settings.disable_attestations is None:
        return Finding("warning", "buildx adds attestations to all images", f"Set {SETTING} to true or false.")
    return None


def _push(setup: _Setup) -> Finding | None:
    if setup.settings.push_from_builder and setup.in_engine:
        advice = "Choose a builder outside the engine: docs/scaling-out.md."
        return Finding("warning", "the engine's own builder loads images, and the engine pushes them", advice)
    return None


def _emulator(setup: _Setup) -> Finding | None:
    if not setup.settings.platform or not setup.platforms:
        return None
    wanted = Platform.of_user(setup.settings.platform).completed(setup.engine.platform)
    if wanted.is_local or any(wanted.processor.matches(known.processor) for known in setup.platforms):
        return None
    return Finding("warning", "RUN steps need an emulator for it", MORE_PLATFORMS)


_RULES: tuple[Callable[[_Setup], Finding | None], ...] = (
    _media_types,
    _compression,
    _cache,
    _attestations,
    _push,
    _emulator,
)
"""What the settings and this Docker can have against each other, worst first."""
