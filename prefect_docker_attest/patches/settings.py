"""The setting ``docker.disable_attestations``, and its registration in Prefect's root ``Settings``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import BeforeValidator, Field, create_model

if TYPE_CHECKING:
    from types import ModuleType

_PICKLED = "prefect_docker_attest"


def _empty_is_unset(value: object) -> object:
    # A CI system exports a variable that nobody set as an empty one, and a boolean
    # field that refuses it takes every `prefect` command down.
    return False if value == "" else value


_Switch = Annotated[bool, BeforeValidator(_empty_is_unset)]
_DESCRIPTION = (
    "Whether every Docker image is built by `docker buildx build`, without provenance and SBOM "
    "attestations, instead of the Docker Engine's classic builder."
)


# An empty variable gives way to the next source, as one that is not set does.
_CONFIG = build_settings_config(("docker",))
_CONFIG["env_ignore_empty"] = True


class DockerSettings(PrefectBaseSettings):
    """Settings of image builds: Prefect's group ``docker``."""

    model_config = _CONFIG

    disable_attestations: _Switch = Field(default=False, description=_DESCRIPTION)


def register(root: ModuleType) -> None:
    """Give Prefect's root settings the field ``docker``, by a subclass of the same name.

    Call it when the module has executed and before anything binds its ``Settings``: the tables that
    Prefect derives from the class are cached at first use. A second call does nothing.

    Args:
        root: the module ``prefect.settings.models.root``

    Raises:
        TypeError: a Prefect whose root settings have another shape than the known ones; nothing is changed
    """
    module: Any = root
    original: Any = getattr(module, "Settings", None)
    if not (isinstance(original, type) and issubclass(original, PrefectBaseSettings)):
        raise TypeError(f"{root.__name__}.Settings is no PrefectBaseSettings: {original!r}")
    if "docker" not in original.model_fields:
        field = Field(default_factory=DockerSettings, description="Settings of image builds")
        module.Settings = _replace(original, _portable("docker"), docker=(DockerSettings, field))
        return
    theirs = original.model_fields["docker"]
    group: Any = theirs.annotation
    if not (isinstance(group, type) and issubclass(group, PrefectBaseSettings)):
        raise TypeError(f"{root.__name__}.Settings.docker is no group of settings: {group!r}")
    if "disable_attestations" not in group.model_fields:
        switch = Field(default=False, description=_DESCRIPTION)
        extended: Any = _replace(group, _portable("disable_attestations"), disable_attestations=(_Switch, switch))
        field = Field(default_factory=extended, description=theirs.description)
        module.Settings = _replace(original, docker=(extended, field))


def _replace(original: type[PrefectBaseSettings], *mixins: type, **fields: Any) -> type[PrefectBaseSettings]:
    """Put a subclass with these fields in the place of a class of Prefect's, where pickles look for it too."""
    extended: type[PrefectBaseSettings] = create_model(
        original.__name__,
        __base__=(*mixins, original),
        __module__=original.__module__,
        __doc__=original.__doc__,
        **fields,
    )
    setattr(sys.modules[original.__module__], original.__name__, extended)
    return extended


def _portable(name: str) -> type:
    """A mixin for a class that got a field of this name: what is pickled is of Prefect's own class.

    A process that lacks this package, a flow run's say, loads Prefect's own class by the name that both
    have, and cannot import ours: what was set of ours is plain data beside what that class knows.
    """

    class Portable:
        def __getstate__(self) -> dict[Any, Any]:
            parent: Any = super()
            state = parent.__getstate__()
            fields, given = dict(state["__dict__"]), state["__pydantic_fields_set__"]
            ours = fields.pop(name)
            if isinstance(ours, DockerSettings):
                pickled = ours.model_dump(exclude_unset=True)
            else:
                pickled = {name: ours} if name in given else {}
            return {**state, "__dict__": fields, "__pydantic_fields_set__": given - {name}, _PICKLED: pickled}

        def __setstate__(self, state: dict[Any, Any]) -> None:
            parent: Any = super()
            parent.__setstate__(state)
            pickled = state.get(_PICKLED)
            ours = DockerSettings() if pickled is None else DockerSettings.model_construct(**pickled)
            self.__dict__[name] = ours if name == "docker" else ours.disable_attestations
            if ours.model_fields_set:
                parent.model_fields_set.add(name)

    return Portable
