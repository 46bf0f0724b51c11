"""The push of an image that its builder has pushed, on a registry that fails: `buildx/push.py`."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import docker
import httpx
import pytest

from engines.published import Published
from prefect_docker_attest.buildx.from_builder import PushedImage
from prefect_docker_attest.buildx.push import push
from prefect_docker_attest.images import registry_auth, retrying
from prefect_docker_attest.images.reference import Reference
from support.attested import publish
from support.guarded import write_docker_config, write_helper
from support.pushing import started_registry
from support.registry_proxy import Fault, RegistryProxy, registry_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture(scope="module")
def address(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started_registry(registry_program, tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryProxy]:
    monkeypatch.setattr(retrying, "_PAUSES", (0, 0, 0))
    monkeypatch.setattr(retrying, "_SPREAD", 0)
    with registry_proxy(address) as proxy:
        yield proxy


@pytest.fixture
def image(proxy: RegistryProxy) -> PushedImage:
    """An image without a tag."""
    published = publish(proxy.address, f"pushed/{uuid4().hex[:8]}", "amd64", tag="first", attested=False)
    name = Reference.parse(published.name.replace(":first", ":v1"))
    return PushedImage(name, published.digest, (published.digest,), "an engine", None)


def pushed(image: PushedImage, auth_config: Mapping[str, str] | None = MappingProxyType({})) -> dict[str, Any]:
    """Push the image; return the last event."""
    client = docker.APIClient("tcp://127.0.0.1:1", version="1.41")
    events: Any = push(client, [image], auth_config, stream=True, decode=True)
    client.close()
    return dict(list(events)[-1])


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("fault", [Fault(502), Fault(429), Fault(), Fault(forwards=True)])
def test_faults_that_pass(proxy: RegistryProxy, image: PushedImage, method: str, fault: Fault) -> None:
    proxy.fail(method, "/manifests/", fault, fault, fault)

    assert pushed(image)["aux"]["Digest"] == image.digest
    assert Published(f"{image.name.name}:v1").digest() == image.digest


@pytest.mark.parametrize(
    ("fault", "problem", "tip"),
    [
        (Fault(503), "answers 503 Service Unavailable", "\nTIP Push the image again later."),
        (Fault(), "cannot be written at", "SSL_CERT_FILE. Then push the image again."),
        (
            Fault(403),
            "Your credentials do not allow writing it.",
            "with an account that can push. Then push the image again.",
        ),
        (
            Fault(412, b'{"errors": [{"message": "configured as immutable"}]}'),
            "412 Precondition Failed (configured as immutable)",
            "\nTIP The registry does not let this tag be moved. Build the image under another tag.",
        ),
        (Fault(400), "answers 400 Bad Request", "but the tag v1 was not moved."),
    ],
    ids=["503", "reset", "403", "immutable", "400"],
)
def test_faults_that_stay(proxy: RegistryProxy, image: PushedImage, fault: Fault, problem: str, tip: str) -> None:
    proxy.fail("PUT", "/manifests/", *[fault] * 4)
    error = pushed(image)["error"]

    assert problem in error
    assert f"The builder pushed the image as {image}, but the tag v1 was not moved." in error
    assert error.endswith(tip)


def test_an_image_that_the_registry_has_removed_must_be_built_again(proxy: RegistryProxy, image: PushedImage) -> None:
    url = f"http://{proxy.registry}/v2/{image.name.repository}/manifests/{image.digest}"
    httpx.delete(url, trust_env=False).raise_for_status()
    error = pushed(image)["error"]

    assert "answers 404 Not Found" in error
    assert error.endswith("\nTIP The registry has removed the image. Build the image again.")


@pytest.mark.parametrize("word", ["immutable", "immutability"])
def test_words_in_the_name_of_an_image_are_not_the_registrys(proxy: RegistryProxy, word: str) -> None:
    published = publish(proxy.address, f"{word}/app", "amd64", tag="first", attested=False)
    image = PushedImage(Reference.parse(f"{proxy.address}/{word}/app:{word}"), published.digest, (), "", None)
    proxy.fail("PUT", "", Fault(400, b'{"errors": [{"message": "%s/app:%s is refused"}]}' % ((word.encode(),) * 2)))

    assert pushed(image)["error"].endswith("was not moved.")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo s3cret garbage", "for {registry} did not return Username and Secret."),
        ("echo s3cret; exit 1", "for {registry} failed."),
        ("exec sleep 1000", "did not answer within 0.5 seconds."),
        (None, "for {registry} is not installed or is not on PATH."),
    ],
    ids=["garbage", "fails", "hangs", "missing"],
)
def test_a_broken_credential_helper_moves_no_tag(
    image: PushedImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    problem: str,
) -> None:
    if script and "sleep" in script:
        monkeypatch.setattr(registry_auth, "_HELPER_TIME", 0.5)
    monkeypatch.setenv("DOCKER_CONFIG", write_docker_config(tmp_path, {"credsStore": "vault"}))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if script:
        write_helper(tmp_path, script)
    first, second, tip = pushed(image, None)["error"].splitlines()

    assert first == f"docker's credential helper docker-credential-vault {problem.format(registry=image.name.registry)}"
    assert second == f"The builder pushed the image as {image}, but the tag v1 was not moved."
    assert tip.startswith("TIP Check credsStore, credHelpers and auths in docker's config.json, or run `docker login ")
    assert tip.endswith(" Then push the image again.")
    assert not Published(f"{image.name.name}:v1").exists
