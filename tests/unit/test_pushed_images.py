"""docker-py's patched methods, for clients and moments without an image that its builder has pushed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from prefect_docker_attest.buildx import from_builder
from prefect_docker_attest.patches import docker_py_images, replacing


class Client:
    """A client of a test, which has no address."""

    def push(self, repository: str, **options: Any) -> tuple[str, dict[str, Any]]:
        return repository, options

    def inspect_image(self, image: str) -> str:
        return image

    def tag(self, image: str, repository: str, tag: str | None = None) -> tuple[str, str, str | None]:
        return image, repository, tag


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(replacing, "_replaced", [])
    patched = type("Patched", (), dict(vars(Client)))
    docker_py_images.install(patched, lambda _: False)
    return patched()


def check(client: Any) -> None:
    assert client.push("a.example/app", tag="v1") == ("a.example/app", {"tag": "v1"})
    assert client.inspect_image("a.example/app:v1") == "a.example/app:v1"
    assert client.tag("a.example/app:v1", "a.example/app") == ("a.example/app:v1", "a.example/app", None)
    docker_py_images.forget(client, (), {"tag": "a.example/app:v1"})


def test_without_pushed_images_a_client_needs_no_address(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_builder, "_pushed", {})
    check(client)


def test_while_another_thread_imports_the_module_there_are_no_pushed_images(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, from_builder.__name__, ModuleType(from_builder.__name__))
    check(client)
