"""`install` and `uninstall`: repeated calls, complete removal, and wrappers of other packages."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import AUTOLOAD, SETTING, builder_of

if TYPE_CHECKING:
    from support.environment import Environment

ON = {SETTING: "true"}
BUILD_BACKENDS = ("prefect._internal.buildx", "prefect.docker._buildx")


def test_install_twice_is_install_once(from_wheel: Environment) -> None:
    def found() -> list[bool]:
        import docker

        import prefect_docker_attest

        original: Any = docker.APIClient.build
        prefect_docker_attest.install()
        ours: Any = docker.APIClient.build
        prefect_docker_attest.install()
        return [ours is original, docker.APIClient.build is ours, ours.__wrapped__ is original]

    # Without autoload, the method is the original one.
    assert from_wheel.call(found, variables={AUTOLOAD: "0"}) == [False, True, True]


@pytest.mark.parametrize("loaded", [True, False], ids=["docker-py is loaded", "docker-py is not loaded"])
def test_uninstall_restores_docker_py_and_install_patches_it_again(from_wheel: Environment, loaded: bool) -> None:
    def builders(loaded: bool) -> list[str]:
        import sys

        from prefect.utilities import dockerutils

        import prefect_docker_attest

        def now() -> str:
            if not loaded:
                for name in [name for name in sys.modules if name.partition(".")[0] == "docker"]:
                    del sys.modules[name]
            import docker

            vars(dockerutils)["docker"] = docker
            return builder_of(dockerutils.docker_client)

        before = now()
        prefect_docker_attest.uninstall()
        without = now()
        prefect_docker_attest.uninstall()
        again = now()
        prefect_docker_attest.install()
        return [before, without, again, now()]

    found = from_wheel.call(builders, loaded, using=[builder_of], variables=ON)
    assert found == ["buildx", "docker-py", "docker-py", "buildx"]


def test_uninstall_restores_docker_pys_classes(from_wheel: Environment, without_us: Environment) -> None:
    def attributes() -> list[object]:
        import docker.api.build

        if "prefect" in docker.APIClient.build.__code__.co_filename:
            import prefect_docker_attest

            prefect_docker_attest.uninstall()
        classes = [docker.APIClient, docker.api.build.BuildApiMixin]
        codes = [docker.APIClient.build.__code__.co_filename, docker.APIClient.close.__code__.co_filename]
        return [*(sorted(vars(each)) for each in classes), *(name.rpartition("site-packages")[2] for name in codes)]

    assert from_wheel.call(attributes) == without_us.call(attributes)


@pytest.mark.skipif(not any(find_spec(name) for name in BUILD_BACKENDS), reason="this Prefect has no build_backend")
def test_build_backend_is_patched_and_restored_too(from_wheel: Environment) -> None:
    def found() -> list[bool]:
        import prefect  # noqa: F401
        from python_on_whales.components.buildx import cli_wrapper

        import prefect_docker_attest
        from prefect_docker_attest.patches.build_backend import is_installed

        prefect_docker_attest.install()
        steps = [is_installed(cli_wrapper)]
        for change in ("uninstall", "uninstall", "install", "install"):
            getattr(prefect_docker_attest, change)()
            steps.append(is_installed(cli_wrapper))
        return steps

    for variables in ({}, {AUTOLOAD: "0"}):
        assert from_wheel.call(found, variables=variables) == [True, False, False, True, True]


def test_uninstall_keeps_wrappers_of_other_packages(from_wheel: Environment) -> None:
    def found() -> list[object]:
        import functools

        import docker
        from prefect.utilities import dockerutils

        import prefect_docker_attest

        ours: Any = docker.APIClient.build
        built: list[str] = []

        @functools.wraps(ours)
        def theirs(*args: Any, **kwargs: Any) -> Any:
            built.append("theirs")
            return ours(*args, **kwargs)

        docker.APIClient.build = theirs  # type: ignore[method-assign]
        prefect_docker_attest.uninstall()
        builder_of(dockerutils.docker_client)
        return [docker.APIClient.build is theirs, built]

    assert from_wheel.call(found, using=[builder_of], variables=ON) == [True, ["theirs"]]


def test_lazy_modules_are_not_loaded(from_wheel: Environment) -> None:
    def lazy_modules() -> list[bool]:
        import importlib.util
        import sys

        def lazy(name: str) -> None:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.loader is not None
            spec.loader = importlib.util.LazyLoader(spec.loader)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])

        # Users can have lazy modules that are never loaded. Prefect imports docker in this way.
        lazy("broken")
        import prefect.utilities.dockerutils  # noqa: F401

        from prefect_docker_attest import startup

        return [
            *(type(sys.modules[name]).__name__ == "_LazyModule" for name in ("broken", "docker")),
            not startup.failures,
        ]

    (from_wheel.project / "broken.py").write_text("raise RuntimeError", encoding="utf-8")
    assert from_wheel.call(lazy_modules) == [True, True, True]


def test_the_exceptions_are_public_and_importing_the_package_imports_nothing_more(from_wheel: Environment) -> None:
    def found() -> list[object]:
        import sys

        import prefect_docker_attest

        packages = "prefect", "prefect_docker_attest", "docker", "pydantic"
        loaded = sorted(name for name in sys.modules if name.partition(".")[0] in packages)
        exceptions = [prefect_docker_attest.BuildFailed, prefect_docker_attest.OptionError]
        from prefect.utilities.dockerutils import BuildError

        return [loaded, *(issubclass(each, BuildError) for each in exceptions), sorted(prefect_docker_attest.__all__)]

    assert from_wheel.call(found) == [
        [
            f"prefect_docker_attest{name}"
            for name in (
                "",
                ".build_settings",
                ".import_hook",
                ".names",
                ".patches",
                ".patches.attestation_warning",
                ".patches.caller",
                ".patches.corruption_warning",
                ".patches.decision",
                ".patches.docker_py_client",
                ".patches.docker_py_images",
                ".patches.late_settings",
                ".patches.replacing",
                ".patches.settings_reader",
                ".refusal",
                ".startup",
            )
        ],
        True,
        True,
        ["BuildFailed", "OptionError", "__version__", "install", "uninstall"],
    ]
