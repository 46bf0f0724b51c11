"""Registers the group of settings ``docker`` in Prefect's root ``Settings``."""

from __future__ import annotations

import copy
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

from prefect.settings.base import PrefectBaseSettings
from pydantic import BeforeValidator, Field, create_model
from pydantic_settings import NoDecode

from prefect_docker_attest.patches.docker_settings import DockerSettings

if TYPE_CHECKING:
    from types import ModuleType

_PICKLED = "prefect_docker_attest"


def _read_group(value: object) -> object:
    """Return the value of the root field ``docker``, without values that belong to other programs.

    Other programs can use ``PREFECT_DOCKER=1``, or ``docker = true`` in prefect.toml. Prefect ignores them without this
    package, so they are ignored here too. A JSON object contains settings of this group.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, (dict, DockerSettings)) else {}


# Prefect's own decoding of a group would stop every Prefect process if the value is not JSON, so it is disabled.
_Group = Annotated[DockerSettings, NoDecode, BeforeValidator(_read_group)]


def register(root: ModuleType) -> None:
    """Replace Prefect's root settings with a subclass of the same name that has the field ``docker``.

    Call it directly after the module has executed, and before another module imports ``Settings`` from it: Prefect
    caches data about the class at its first use. A second call does nothing.

    Args:
        root: the module ``prefect.settings.models.root``

    Raises:
        TypeError: this version of Prefect is not supported. Nothing is changed
    """
    module: Any = root
    original: Any = getattr(module, "Settings", None)
    if not (isinstance(original, type) and issubclass(original, PrefectBaseSettings)):
        raise TypeError(f"{root.__name__}.Settings is not a PrefectBaseSettings: {original!r}")
    if "docker" not in original.model_fields:
        field = Field(default_factory=DockerSettings, description="Settings of image builds")
        module.Settings = _replace(original, _portable("docker"), docker=(_Group, field))
        return
    theirs = original.model_fields["docker"]
    group: Any = theirs.annotation
    if not (isinstance(group, type) and issubclass(group, PrefectBaseSettings)):
        raise TypeError(f"{root.__name__}.Settings.docker is not a group of settings: {group!r}")
    ours = DockerSettings.model_fields
    if missing := {name: ours[name] for name in ours if name not in group.model_fields}:
        columns = {name: (field.rebuild_annotation(), copy.copy(field)) for name, field in missing.items()}
        extended: Any = _replace(group, _portable(*missing), **columns)
        field = Field(default_factory=extended, description=theirs.description)
        module.Settings = _replace(original, docker=(extended, field))


def _replace(original: type[PrefectBaseSettings], *mixins: type, **fields: Any) -> type[PrefectBaseSettings]:
    """Replace a class of Prefect with a subclass that has these fields, also in its module, where pickles find it."""
    extended: type[PrefectBaseSettings] = create_model(
        original.__name__,
        __base__=(*mixins, original),
        __module__=original.__module__,
        __doc__=original.__doc__,
        **fields,
    )
    setattr(sys.modules[original.__module__], original.__name__, extended)
    return extended


def _portable(*names: str) -> type:
    """Return a mixin for a class with these additional fields, so that its pickles also load without this package.

    A process without this package, such as that of a flow run, loads Prefect's own class by the same name. So the
    pickled state contains the additional fields as plain data, separate from the fields of Prefect's class.
    """

    class Portable:
        def __getstate__(self) -> dict[Any, Any]:
            parent: Any = super()
            state = parent.__getstate__()
            fields, given = dict(state["__dict__"]), state["__pydantic_fields_set__"]
            pickled: dict[str, Any] = {}
            for name in names:
                ours = fields.pop(name)
                if isinstance(ours, DockerSettings):
                    pickled |= ours.model_dump(exclude_unset=True)
                elif name in given:
                    pickled[name] = ours
            return {**state, "__dict__": fields, "__pydantic_fields_set__": given - {*names}, _PICKLED: pickled}

        def __setstate__(self, state: dict[Any, Any]) -> None:
            parent: Any = super()
            parent.__setstate__(state)
            pickled = state.get(_PICKLED)
            ours = DockerSettings() if pickled is None else DockerSettings.model_construct(**pickled)
            for name in names:
                of_group = name in DockerSettings.model_fields
                self.__dict__[name] = getattr(ours, name) if of_group else ours
                if name in ours.model_fields_set or (ours.model_fields_set and not of_group):
                    parent.model_fields_set.add(name)

    return Portable
