"""Pickles Prefect's settings in one process, and loads them in another. Call these functions in an `Environment`."""

from __future__ import annotations

from typing import Any


def pickled() -> dict[str, str]:
    """Pickle Prefect's settings, and the context that contains them."""
    import importlib

    from prefect.context import get_settings_context

    context = get_settings_context()
    return {
        f"{what} by {module}": importlib.import_module(module).dumps(value).hex()
        for module in ("pickle", "cloudpickle")
        for what, value in {"settings": context.settings, "context": context}.items()
    }


def loaded(pickles: dict[str, str], names: list[str]) -> dict[str, Any]:
    """Load each pickle and use it as the settings of this process.

    Returns for each pickle: whether its class is that of this process, its group ``docker``, and these variables.
    """
    import pickle

    import prefect.settings
    from prefect.context import SettingsContext, get_settings_context

    found: dict[str, Any] = {}
    for kind, data in pickles.items():
        value = pickle.loads(bytes.fromhex(data))
        if not isinstance(value, SettingsContext):
            value = SettingsContext(profile=get_settings_context().profile, settings=value)
        with value:
            settings = prefect.settings.get_current_settings()
            variables = settings.to_environment_variables(exclude_unset=True)
            found[kind] = [
                type(settings) is prefect.settings.Settings,
                settings.model_dump(exclude_none=True).get("docker"),
                {name: variables[name] for name in names if name in variables},
            ]
    return found


def assert_loaded(found: dict[str, Any], *, docker: object, variables: dict[str, str]) -> None:
    assert len(found) == 4
    assert found == {kind: [True, docker, variables] for kind in found}
