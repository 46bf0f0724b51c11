"""The setting ``docker.disable_attestations``, and its registration in Prefect's root ``Settings``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import BeforeValidator, Field, create_model

if TYPE_CHECKING:
    from types import ModuleType

NAME = "PREFECT_DOCKER_DISABLE_ATTESTATIONS"
"""The environment variable, and the setting's name in a profile."""

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


def _with_the_setting(group: type[PrefectBaseSettings]) -> type[PrefectBaseSettings]:
    extended: type[PrefectBaseSettings] = create_model(
        group.__name__,
        __base__=group,
        __module__=group.__module__,
        disable_attestations=(_Switch, Field(default=False, description=_DESCRIPTION)),
    )
    extended.__qualname__ = group.__qualname__
    return extended


def register(root: ModuleType) -> None:
    """Give Prefect's root settings the field ``docker``, by a subclass of the same name.

    Call it when the module has executed and before anything binds its ``Settings``: the tables that
    Prefect derives from the class are cached at first use. A second call does nothing.

    Args:
        root: the module ``prefect.settings.models.root``

    Raises:
        TypeError: a Prefect whose root settings have another shape than the known ones; nothing is changed
    """
    original: Any = getattr(root, "Settings", None)
    if not (isinstance(original, type) and issubclass(original, PrefectBaseSettings)):
        raise TypeError(f"{root.__name__}.Settings is no PrefectBaseSettings: {original!r}")
    group: Any = DockerSettings
    if "docker" in original.model_fields:
        group = original.model_fields["docker"].annotation
        if not (isinstance(group, type) and issubclass(group, PrefectBaseSettings)):
            raise TypeError(f"{root.__name__}.Settings.docker is no group of settings: {group!r}")
        if "disable_attestations" in group.model_fields:
            return
        group = _with_the_setting(group)

    class Settings(original):  # type: ignore[misc]
        docker: group = Field(default_factory=group, description="Settings of image builds")

        # A process that lacks this package, a flow run's say, loads Prefect's own class by this
        # name, and cannot import ours: what is pickled holds nothing but plain data of it.
        def __getstate__(self) -> dict[Any, Any]:
            state: dict[Any, Any] = super().__getstate__()
            fields = dict(state["__dict__"])
            docker = fields.pop("docker")
            return {
                **state,
                "__dict__": fields,
                "__pydantic_fields_set__": state["__pydantic_fields_set__"] - {"docker"},
                _PICKLED: (dict(docker.__dict__), set(docker.model_fields_set)),
            }

        def __setstate__(self, state: dict[Any, Any]) -> None:
            state = dict(state)
            pickled = state.pop(_PICKLED, None)
            super().__setstate__(state)
            docker = group() if pickled is None else group.model_construct(pickled[1], **pickled[0])
            self.__dict__["docker"] = docker
            if docker.model_fields_set:
                self.__pydantic_fields_set__.add("docker")

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(Settings, name, getattr(original, name))
    root.Settings = Settings  # type: ignore[attr-defined]


def attestations_disabled() -> bool:
    """Whether builds go through buildx without attestations, as of now.

    Where the setting is not registered (see the package's docstring), it is read from Prefect's sources alone.

    Raises:
        pydantic.ValidationError: the value is no boolean
    """
    from prefect.settings import get_current_settings

    registered = getattr(get_current_settings(), "docker", None)
    value = getattr(registered, "disable_attestations", None)
    return bool(DockerSettings().disable_attestations if value is None else value)
