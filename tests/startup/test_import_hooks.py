"""The import hooks together with other features of Python's import system."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import DOCKERUTILS, FAKE_PREFECT, ROOT_SETTINGS, SETTING, builder_of, write

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from support.environment import Environment


def test_the_modules_keep_their_own_loaders(from_wheel: Environment) -> None:
    def loaders(names: list[str]) -> list[object]:
        import importlib
        import inspect
        from pathlib import Path

        found: list[object] = []
        for name in names:
            module = importlib.import_module(name)
            assert module.__spec__ is not None
            found += [
                type(module.__loader__).__name__,
                module.__spec__.loader is module.__loader__,
                inspect.getsource(module) == Path(str(module.__file__)).read_text(encoding="utf-8"),
            ]
        return found

    assert from_wheel.call(loaders, [DOCKERUTILS, ROOT_SETTINGS]) == ["SourceFileLoader", True, True] * 2


def test_the_source_of_a_module_can_be_read_before_it_is_imported(from_wheel: Environment) -> None:
    def source(name: str) -> str | None:
        import importlib.util

        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader = spec.loader
        return loader.get_source(name)  # type: ignore[union-attr, no-any-return]

    write(from_wheel.project, FAKE_PREFECT)
    assert from_wheel.call(source, DOCKERUTILS) == FAKE_PREFECT["prefect/utilities/dockerutils.py"]


def test_a_spec_can_be_copied(from_wheel: Environment) -> None:
    def copied(name: str) -> str:
        import copy
        import importlib.util

        return copy.deepcopy(importlib.util.find_spec(name)).name  # type: ignore[union-attr]

    write(from_wheel.project, FAKE_PREFECT)
    assert from_wheel.call(copied, DOCKERUTILS) == DOCKERUTILS


def test_a_module_runs_as_a_program(from_wheel: Environment) -> None:
    write(from_wheel.project, {**FAKE_PREFECT, "prefect/utilities/dockerutils.py": "print(__name__)"})
    assert from_wheel.output("-m", DOCKERUTILS) == "__main__\n"


def test_a_shared_loader_runs_only_the_hook_of_each_module(from_wheel: Environment) -> None:
    def registered() -> dict[str, bool]:
        import importlib

        root: Any = importlib.import_module("prefect.settings.models.root")
        others: Any = importlib.import_module("prefect.settings.models.others")
        assert root.__loader__ is others.__loader__, "zipimport shares a loader in a folder"
        return {module.__name__: "docker" in module.Settings.model_fields for module in (root, others)}

    folder = from_wheel.project
    with zipfile.ZipFile(folder / "prefect.zip", "w") as archive:
        others = {"prefect/settings/models/others.py": FAKE_PREFECT["prefect/settings/models/root.py"]}
        for name, text in {**FAKE_PREFECT, **others}.items():
            archive.writestr(name, text)
    variables = {"PYTHONPATH": str(folder / "prefect.zip")}
    assert from_wheel.call(registered, variables=variables) == {
        ROOT_SETTINGS: True,
        "prefect.settings.models.others": False,
    }


def test_reloaded_dockerutils_are_patched_again(from_wheel: Environment) -> None:
    def builders() -> list[str]:
        import importlib

        from prefect.utilities import dockerutils

        docker_image: Any = importlib.import_module("prefect.docker.docker_image")
        before = dockerutils.docker_client
        importlib.reload(dockerutils)
        assert dockerutils.docker_client is not before
        return [builder_of(each) for each in (dockerutils.docker_client, docker_image.docker_client, before)]

    assert from_wheel.call(builders, using=[builder_of], variables={SETTING: "true"}) == ["buildx"] * 3


def test_reloaded_root_settings_have_the_setting(from_wheel: Environment) -> None:
    def values() -> list[bool]:
        import importlib

        root: Any = importlib.import_module("prefect.settings.models.root")
        before = root.Settings
        importlib.reload(root)
        assert root.Settings is not before
        return [settings().docker.disable_attestations for settings in (root.Settings, before)]

    assert from_wheel.call(values, variables={SETTING: "true"}) == [True, True]


@pytest.mark.parametrize("place", [0, 1], ids=["in-front-of-ours", "behind-ours"])
def test_another_finder_that_asks_all_finders_works_with_ours(from_wheel: Environment, place: int) -> None:
    def executed(place: int, names: list[str]) -> dict[str, object]:
        import importlib.util
        import sys

        executed: list[str] = []

        class Loader:
            def __init__(self, loader: Any) -> None:
                self.loader = loader

            def create_module(self, spec: ModuleSpec) -> ModuleType | None:
                return self.loader.create_module(spec)  # type: ignore[no-any-return]

            def exec_module(self, module: ModuleType) -> None:
                self.loader.exec_module(module)
                executed.append(module.__name__)

        class Finder:
            """A finder like those of wrapt and ddtrace."""

            def __init__(self) -> None:
                self.asking: set[str] = set()

            def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
                if name not in names or name in self.asking:
                    return None
                self.asking.add(name)
                try:
                    spec = importlib.util.find_spec(name)
                finally:
                    self.asking.remove(name)
                if spec:
                    spec.loader = Loader(spec.loader)  # type: ignore[assignment]
                return spec

        sys.meta_path.insert(place, Finder())
        root: Any = importlib.import_module("prefect.settings.models.root")
        dockerutils = importlib.import_module("prefect.utilities.dockerutils")
        return {
            "theirs": sorted(executed),
            "setting": root.Settings().docker.disable_attestations,
            "builder": builder_of(dockerutils.docker_client),
        }

    found = from_wheel.call(
        executed, place, [ROOT_SETTINGS, DOCKERUTILS], using=[builder_of], variables={SETTING: "true"}
    )
    assert found == {"theirs": [ROOT_SETTINGS, DOCKERUTILS], "setting": True, "builder": "buildx"}


def test_a_nested_look_up_does_not_hook_a_module_twice(from_wheel: Environment) -> None:
    def own_loader(name: str, other: str) -> str:
        import importlib.util
        import sys

        import prefect  # noqa: F401

        class Finder:
            asked = False

            def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
                if fullname != name or self.asked:
                    return None
                self.asked = True
                importlib.util.find_spec(other)
                return importlib.util.find_spec(name)

        sys.meta_path.insert(1, Finder())
        spec: Any = importlib.util.find_spec(name)
        return type(spec.loader._loader).__name__

    write(from_wheel.project, FAKE_PREFECT)
    assert from_wheel.call(own_loader, DOCKERUTILS, ROOT_SETTINGS) == "SourceFileLoader"


def test_a_look_up_in_one_thread_hides_nothing_from_another(from_wheel: Environment) -> None:
    def found(name: str) -> list[bool]:
        import sys
        import threading

        import prefect.utilities

        ours: Any = next(each for each in sys.meta_path if type(each).__module__ == "prefect_docker_attest.import_hook")
        found: list[bool] = []

        def look_up() -> None:
            found.append(ours.find_spec(name, prefect.utilities.__path__) is not None)

        class Finder:
            """A finder that lets another thread look up the module before it answers."""

            def find_spec(self, fullname: str, *_: object) -> None:
                if fullname == name and threading.current_thread() is threading.main_thread():
                    other = threading.Thread(target=look_up)
                    other.start()
                    other.join()

        sys.meta_path.insert(0, Finder())
        look_up()
        return found

    write(from_wheel.project, FAKE_PREFECT)
    assert from_wheel.call(found, DOCKERUTILS) == [True, True]
