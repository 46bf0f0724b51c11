"""`inspect` with docker's credentials, for a registry that requires a password, and one that requires a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prefect_docker_attest.images.documents import ImageError
from prefect_docker_attest.images.reference import Reference
from prefect_docker_attest.images.registry import Repository
from prefect_docker_attest.images.tagging import put_tag
from support.guarded import BASIC, GIVES_PASSWORD, PASSWORD, USER, guarded_registry, write_docker_config, write_helper
from support.hostile import Answer, hostile_server
from support.pushing import digest, push_image, tar_layer
from support.tokens import REFRESH, Tokens, registry_with_tokens, token_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.shipped import Run


@pytest.fixture
def guarded(program: str, tmp_path: Path) -> Iterator[str]:
    """The name of an image in a registry that requires a password."""
    with guarded_registry(program, tmp_path) as address:
        basic = {"Authorization": f"Basic {BASIC}"}
        push_image(f"http://{address}/v2/team/app", tar_layer("guarded"), tag="v1", headers=basic)
        yield f"{address}/team/app:v1"


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    with token_server() as server:
        yield server


@pytest.fixture
def by_token(program: str, tokens: Tokens, tmp_path: Path) -> Iterator[str]:
    """The name of an image in a registry that requires a token."""
    with registry_with_tokens(program, tmp_path, tokens) as address:
        bearer = {"Authorization": f"Bearer {tokens.token('repository:team/app:pull,push')}"}
        push_image(f"http://{address}/v2/team/app", tar_layer("by token"), tag="v1", headers=bearer)
        yield f"{address}/team/app:v1"


def _path_of(folder: Path, script: str) -> str:
    """Return a PATH with this script as the credential helper `docker-credential-vault`."""
    write_helper(folder, script)
    return f"{folder}:/usr/bin:/bin"


def test_without_a_password_the_login_command_is_shown(run: Run, guarded: str) -> None:
    result = run("inspect", guarded)

    assert result.code == 3
    assert "answers 401 Unauthorized (authentication required) for team/app:v1" in result.err
    assert f"`docker login {guarded.partition('/')[0]}`" in result.err


def test_the_password_of_docker_login(run: Run, guarded: str, tmp_path: Path) -> None:
    config = write_docker_config(tmp_path, {"auths": {guarded.partition("/")[0]: {"auth": BASIC}}})
    result = run("inspect", guarded, "--json", "--fail-on-corruption", DOCKER_CONFIG=config)

    assert (result.code, result.err) == (0, "")
    assert PASSWORD not in result.out


def test_the_password_of_a_credential_helper(run: Run, guarded: str, tmp_path: Path) -> None:
    path = _path_of(tmp_path, GIVES_PASSWORD)
    config = write_docker_config(tmp_path, {"credHelpers": {guarded.partition("/")[0]: "vault"}})
    result = run("inspect", guarded, "--fail-on-corruption", DOCKER_CONFIG=config, PATH=path)

    assert (result.code, result.err) == (0, "")
    assert PASSWORD not in result.out


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"echo wrong {PASSWORD}; exit 1", "failed.\nTIP Check credsStore"),
        (f"""echo '{{"Username": "eve", "Secret": "{PASSWORD}"}}'""", "401 Unauthorized"),
        (None, "is not installed or is not on PATH"),
    ],
)
def test_a_wrong_password_or_a_broken_helper_is_an_error_without_the_secret(
    run: Run, guarded: str, tmp_path: Path, script: str | None, reason: str
) -> None:
    path = _path_of(tmp_path, script) if script else "/usr/bin:/bin"
    config = write_docker_config(tmp_path, {"credsStore": "vault"})
    result = run("inspect", guarded, "--json", DOCKER_CONFIG=config, PATH=path)

    assert result.code == 3
    assert reason in result.err
    assert PASSWORD not in result.out + result.err


def test_a_token_for_the_password_of_docker_login(run: Run, by_token: str, tokens: Tokens, tmp_path: Path) -> None:
    config = write_docker_config(tmp_path, {"auths": {by_token.partition("/")[0]: {"auth": BASIC}}})
    result = run("inspect", by_token, "--fail-on-corruption", DOCKER_CONFIG=config)

    assert (result.code, result.err) == (0, "")
    assert tokens.asked == ["GET repository:team/app:pull"]


def test_a_token_for_the_identity_token_of_a_helper(run: Run, by_token: str, tokens: Tokens, tmp_path: Path) -> None:
    path = _path_of(tmp_path, f"""echo '{{"Username": "<token>", "Secret": "{REFRESH}"}}'""")
    config = write_docker_config(tmp_path, {"credsStore": "vault"})
    result = run("inspect", by_token, "--fail-on-corruption", DOCKER_CONFIG=config, PATH=path)

    assert (result.code, result.err) == (0, "")
    assert tokens.asked == ["POST repository:team/app:pull"]
    assert REFRESH not in result.out


def test_no_token_without_a_password(run: Run, by_token: str) -> None:
    result = run("inspect", by_token)

    assert result.code == 3
    assert "answers 401 Unauthorized (wrong password) for team/app:v1" in result.err


def test_a_tag_is_put_by_a_token_of_its_own(by_token: str, tokens: Tokens) -> None:
    published = Reference.parse(by_token)
    credentials = {"Username": USER, "Password": PASSWORD}
    with Repository(published, credentials) as repository:
        media_type, content = repository.document("manifests/v1", None)
    size = put_tag(Reference.parse(f"{published.name}:v2"), digest(content), credentials)

    assert size == len(content)
    with Repository(published, credentials) as repository:
        assert repository.document("manifests/v2", digest(content)) == (media_type, content)
    assert tokens.asked[1] == "GET repository:team/app:pull"
    # The registry names what the token must allow in any order.
    assert tokens.asked[2] in ("GET repository:team/app:pull,push", "GET repository:team/app:push,pull")


def test_a_tag_that_a_token_does_not_allow_is_not_moved(by_token: str) -> None:
    with pytest.raises(ImageError, match="401 Unauthorized") as refused:
        put_tag(Reference.parse(by_token), f"sha256:{'0' * 64}", {})
    assert refused.value.tip.startswith(f"Run `docker login {by_token.partition('/')[0]}`.")


def test_strip_writes_with_a_token_of_its_own(run: Run, by_token: str, tokens: Tokens, tmp_path: Path) -> None:
    config = write_docker_config(tmp_path, {"auths": {by_token.partition("/")[0]: {"auth": BASIC}}})
    result = run("strip", "--tag=v2", by_token, DOCKER_CONFIG=config)

    assert (result.code, result.err) == (0, "")
    assert {*tokens.asked[1].partition("app:")[2].split(",")} == {"pull", "push"}
    assert run("inspect", by_token.replace(":v1", ":v2"), DOCKER_CONFIG=config).code == 0
    assert PASSWORD not in result.out


def test_a_registry_can_accept_a_tag_with_any_successful_status() -> None:
    with hostile_server() as server:
        image = server.image("v1", tar_layer("x"))
        server.answers["x/manifests/v2"] = Answer(status=202)
        assert put_tag(Reference.parse(f"{server.address}/x:v2"), image["digest"], {}) == image["size"]
        server.answers["x/manifests/v2"] = Answer(status=304)
        with pytest.raises(ImageError, match="304 Not Modified"):
            put_tag(Reference.parse(f"{server.address}/x:v2"), image["digest"], {})
