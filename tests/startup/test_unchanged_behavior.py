"""Behavior that this package must not change: each function has the same result with and without it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from support.environment import SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support.environment import Environment

ON = {SETTING: "true"}


def opened(client: object) -> Any:
    """Return Prefect's `docker_client()`, which opens this client."""
    import contextlib
    from unittest import mock

    import docker  # noqa: F401 before its class is mocked
    from prefect.utilities.dockerutils import docker_client

    @contextlib.contextmanager
    def patched() -> Iterator[Any]:
        with mock.patch("docker.DockerClient.from_env", return_value=client) as from_env, docker_client() as yielded:
            yield yielded
        from_env.assert_called_once_with()

    return patched()


def a_mocked_client() -> list[object]:
    from pathlib import Path
    from unittest import mock

    from prefect.utilities.dockerutils import build_image

    client = mock.MagicMock()
    client.api.build.return_value = [{"aux": {"ID": "sha256:mocked"}}]
    with mock.patch("docker.DockerClient.from_env", return_value=client):
        image_id = build_image(Path(), platform="linux/arm64", provenance=False)
    client.api.build.assert_called_once()
    client.close.assert_called_once_with()
    return [image_id, repr(client.api.build.call_args)]


def autospecced_clients() -> list[object]:
    from unittest import mock

    import docker

    client = mock.create_autospec(docker.DockerClient, instance=True)
    client.api = mock.create_autospec(docker.APIClient, instance=True)
    with opened(client) as yielded:
        yielded.api.build(path=".")
    client.api.build.assert_called_once_with(path=".")
    try:
        client.api.build(nonsense=1)
    except TypeError as error:
        return [str(error), client.api.close.called]
    return []


def clients_with_a_spec() -> list[object]:
    from unittest import mock

    client = mock.Mock(spec_set=["api", "close"])
    client.api = mock.Mock(spec_set=["build"])
    with opened(client) as yielded:
        yielded.api.build(path=".")
    return [repr(client.mock_calls), sorted(vars(client.api))]


def slotted_and_named_tuple_apis() -> list[object]:
    from typing import NamedTuple

    class Slotted:
        __slots__ = ("built",)

        def build(self, **options: object) -> dict[str, object]:
            self.built = options
            return options

    class Named(NamedTuple):
        build: Any

    class Client:
        def __init__(self, api: object) -> None:
            self.api = api

        def close(self) -> None:
            pass

    found: list[object] = []
    for api in (Slotted(), Named(lambda **options: options)):
        with opened(Client(api)) as yielded:
            found += [yielded.api is api, yielded.api.build(path=".", secrets=["id=a"])]
    return found


def a_client_without_an_api() -> list[object]:
    class Client:
        def close(self) -> None:
            self.closed = True

    client = Client()
    with opened(client) as yielded:
        same = yielded is client
    return [same, vars(client)]


def a_client_that_1200_blocks_share() -> list[object]:
    from unittest import mock

    import docker
    from prefect.utilities.dockerutils import docker_client

    client = docker.DockerClient(base_url="unix:///nowhere", version="1.44")
    attributes = sorted(vars(client.api))
    with (
        mock.patch("docker.DockerClient.from_env", return_value=client),
        mock.patch.object(docker.APIClient, "_post"),
        mock.patch.object(docker.APIClient, "_stream_helper", return_value=["docker-py"]),
    ):
        for _ in range(1200):
            with docker_client() as opened:
                events = opened.api.build(path=".")
    return [events, sorted(vars(client.api)) == attributes]


def the_function_and_its_source() -> list[object]:
    import inspect

    from prefect.utilities import dockerutils

    function: Any = dockerutils.docker_client
    return [
        repr(function.__wrapped__).partition(" at ")[0],
        hasattr(function.__wrapped__, "__wrapped__"),
        inspect.getsource(function),
        sorted(vars(function)),
        function.__code__.co_filename.rpartition("/")[2],
    ]


def a_client_of_the_users_own() -> list[object]:
    from unittest import mock

    import docker

    client = docker.DockerClient(base_url="unix:///nowhere", version="1.44")
    with mock.patch.object(docker.APIClient, "_post") as post:
        client.api.build(path=".", tag="app:v1")
    try:
        client.api.build(path=".", secrets=["id=a"])  # type: ignore[call-arg]
    except TypeError as error:
        return [post.call_args.kwargs["params"], "secrets" in str(error)]
    return []


def what_is_left_of_a_client() -> list[object]:
    """Return whether the block frees a client immediately, without the garbage collector."""
    import gc
    import weakref
    from unittest import mock

    import docker
    from prefect.utilities.dockerutils import docker_client

    gc.disable()
    with (
        mock.patch.object(docker.APIClient, "_retrieve_server_version", return_value="1.44"),
        mock.patch.object(docker.APIClient, "_post"),
        mock.patch.object(docker.APIClient, "_stream_helper", return_value=iter([{"stream": "docker-py"}])),
    ):
        with docker_client() as client:
            api = weakref.ref(client.api)
            events = list(client.api.build(path="."))
        adapters = [type(adapter).__name__ for adapter in client.api.adapters.values()]
        del client
    return [events, adapters, api() is None]


def a_mock_of_the_method_where_it_is_defined() -> list[object]:
    from unittest import mock

    import docker
    from docker.api.build import BuildApiMixin
    from prefect.utilities.dockerutils import docker_client

    found: list[object] = []
    for owner in (BuildApiMixin, docker.APIClient):
        with (
            mock.patch.object(docker.APIClient, "_retrieve_server_version", return_value="1.44"),
            mock.patch.object(owner, "build", autospec=True) as build,
            docker_client() as client,
        ):
            client.api.build(path=".", pull=True)
        found.append(build.call_args.kwargs)
    return found


def mocked_closing() -> list[object]:
    from unittest import mock

    import docker
    from prefect.utilities.dockerutils import docker_client

    called: list[object] = []
    for target in ("docker.api.client.APIClient.close", "requests.Session.close", "docker.DockerClient.close"):
        with (
            mock.patch.object(docker.APIClient, "_retrieve_server_version", return_value="1.44"),
            mock.patch(target) as close,
            docker_client(),
        ):
            pass
        called.append(close.call_count)
    return called


FAKES: list[Callable[[], list[object]]] = [
    a_mocked_client,
    autospecced_clients,
    clients_with_a_spec,
    slotted_and_named_tuple_apis,
    a_client_without_an_api,
    a_client_that_1200_blocks_share,
    the_function_and_its_source,
    a_client_of_the_users_own,
    a_mock_of_the_method_where_it_is_defined,
    mocked_closing,
]


ALL = [*FAKES, what_is_left_of_a_client]


@pytest.fixture(scope="module")
def results(
    _from_wheel: Environment, _without_us: Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, list[object]]]:
    """The results of the functions by their names: without the package, and with the setting off and on."""

    def of(environment: Environment, functions: Iterable[Callable[[], list[object]]], **on: str) -> dict[str, Any]:
        environment = replace(environment, project=tmp_path_factory.mktemp("behavior"))
        results = environment.call_each([(function, ()) for function in functions], using=[opened], variables=on)
        return {function.__name__: result for function, result in zip(functions, results, strict=True)}

    return {"without": of(_without_us, ALL), "off": of(_from_wheel, ALL), "on": of(_from_wheel, FAKES, **ON)}


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.__name__)
def test_setting_off_nothing_changes(
    results: dict[str, dict[str, list[object]]], function: Callable[[], list[object]]
) -> None:
    found = results["off"][function.__name__]
    assert found
    assert found == results["without"][function.__name__]


@pytest.mark.parametrize("function", FAKES, ids=lambda function: function.__name__)
def test_setting_on_fakes_and_other_clients_do_not_change(
    results: dict[str, dict[str, list[object]]], function: Callable[[], list[object]]
) -> None:
    assert results["on"][function.__name__] == results["without"][function.__name__]


def test_setting_on_clients_that_a_flow_opens_are_not_patched(from_wheel: Environment) -> None:
    def built() -> list[str]:
        from unittest import mock

        import docker
        from prefect.logging import disable_run_logger  # older versions of DockerHost need a flow run
        from prefect.utilities.callables import call_with_parameters  # Prefect calls the function of a flow with this
        from prefect_docker.host import DockerHost

        def builds() -> list[str]:
            return [str(client.api.build(path=".")) for client in (docker.from_env(), DockerHost().get_client())]

        with (
            disable_run_logger(),
            mock.patch.object(docker.APIClient, "_retrieve_server_version", return_value="1.44"),
            mock.patch.object(docker.APIClient, "_post"),
            mock.patch.object(docker.APIClient, "_stream_helper", return_value="docker-py"),
        ):
            return call_with_parameters(builds, {})

    assert from_wheel.call(built, variables=ON) == ["docker-py", "docker-py"]


def built_after_removal(package: str) -> list[object]:
    """Remove the package's files, and then build with Prefect."""
    import shutil
    from pathlib import Path
    from unittest import mock

    # Prefect 3.1 reads its settings when this module is imported, newer versions always import it.
    import prefect.context
    import prefect.utilities.dockerutils

    if Path(package).exists():
        shutil.move(package, f"{package}.away")
    try:
        import docker

        with (
            mock.patch.object(docker.APIClient, "_retrieve_server_version", return_value="1.44"),
            mock.patch.object(docker.APIClient, "_post"),
            mock.patch.object(docker.APIClient, "_stream_helper", return_value=[{"aux": {"ID": "by docker-py"}}]),
        ):
            found: list[object] = [prefect.utilities.dockerutils.build_image(Path())]
            with prefect.utilities.dockerutils.docker_client() as client:
                found += client.api.build(path=".")
            return found
    except prefect.utilities.dockerutils.BuildError as error:
        return [str(error)]
    finally:
        if Path(f"{package}.away").exists():
            shutil.move(f"{package}.away", package)


def test_setting_off_uninstalling_the_package_changes_nothing(from_wheel: Environment, without_us: Environment) -> None:
    found = from_wheel.call(built_after_removal, str(from_wheel.package))
    assert from_wheel.package.exists()
    assert (
        found == without_us.call(built_after_removal, "/nowhere") == ["by docker-py", {"aux": {"ID": "by docker-py"}}]
    )


def test_setting_on_builds_are_refused_after_uninstalling_the_package(from_wheel: Environment) -> None:
    (message,) = from_wheel.call(built_after_removal, str(from_wheel.package), variables=ON)
    assert str(message).startswith(
        f"{SETTING} is set, but prefect-docker-attest cannot take over this build: No module"
    )


def test_the_refusal_after_uninstalling_names_the_settings_that_are_set(from_wheel: Environment) -> None:
    platform = "PREFECT_DOCKER_PLATFORM"
    for variables, start in (
        ({platform: "linux/amd64"}, f"{platform} is set, but"),
        ({platform: "linux/amd64", **ON}, f"{SETTING} and {platform} are set, but"),
    ):
        (message,) = from_wheel.call(built_after_removal, str(from_wheel.package), variables=variables)
        assert str(message).startswith(start)
