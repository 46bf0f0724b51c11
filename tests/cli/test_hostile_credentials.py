"""`inspect` with broken credentials: helpers, docker's configuration, token servers. No secret is part of an error."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from prefect_docker_attest.images import registry_auth
from prefect_docker_attest.images.documents import ImageError
from support.guarded import BASIC, GIVES_PASSWORD, PASSWORD, write_docker_config, write_helper
from support.hostile import Answer, HostileServer, endless, hostile_server
from support.pushing import MANIFEST, tar_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.shipped import Run

TOKEN = "s3cret-token"
MEMORY = 300 << 20


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        server.image("v1", tar_layer("x"))
        server.challenge = challenge(server)
        yield server


def challenge(server: HostileServer, realm: str | None = None) -> Answer:
    header = f'Bearer realm="{realm or f"{server.url}/token"}",service="registry",scope="repository:x:pull"'
    return Answer(b"{}", 401, {"WWW-Authenticate": header})


def error(run: Run, server: HostileServer, **environment: str | None) -> str:
    result = run("inspect", f"{server.address}/x:v1", "--json", **environment)

    assert (result.code, result.json["images"], len(result.json["errors"])) == (3, [], 1)
    assert result.peak < MEMORY
    assert not [secret for secret in ("s3cret", BASIC, "\x1b") if secret in result.out + result.err]
    assert "bug" not in result.err
    return str(result.json["errors"][0]["error"])


def token(value: Any) -> bytes:
    return json.dumps({"token": value}).encode()


TOKENS: dict[str, tuple[Callable[[], Answer], str]] = {
    "HTML": (lambda: Answer(b"<html>sign in s3cret</html>"), "did not send a usable token"),
    "a list": (lambda: Answer(b"[]"), "did not send a usable token"),
    "null": (lambda: Answer(b"null"), "did not send a usable token"),
    "no token": (lambda: Answer(b"{}"), "did not send a usable token"),
    "a number": (lambda: Answer(token(5)), "did not send a usable token"),
    "a line break": (lambda: Answer(token(f"{TOKEN}\r\nX-Y: z")), "did not send a usable token"),
    "a space": (lambda: Answer(token(f"{TOKEN} {TOKEN}")), "did not send a usable token"),
    "no ASCII": (lambda: Answer(token(f"{TOKEN}é")), "did not send a usable token"),
    "an escape": (lambda: Answer(token(f"{TOKEN}\x1b[31m")), "did not send a usable token"),
    "a surrogate": (lambda: Answer(b'{"token": "\\ud800"}'), "did not send a usable token"),
    "nested": (lambda: Answer(b'{"token":' * 100_000), "did not send a usable token"),
    "without end": (lambda: Answer(endless()), "is longer than 1,048,576 bytes"),
    "a long one": (lambda: Answer(token("s3cret" * 100_000)), "answers 431 Line too long"),
    "an error": (lambda: Answer(b"s3cret", 500), "answers 500"),
    "an error without end": (lambda: Answer(endless(), 503), "answers 503"),
    "refused without end": (lambda: Answer(endless(), 403), "answers 403 Forbidden"),
    "refused with words": (
        lambda: Answer(b'{"errors": [{"message": "\\u001b[31mno"}]}', 401),
        "answers 401 Unauthorized (\x1b[31mno)",
    ),
    "a redirect to itself": (lambda: Answer(b"", 302, {"Location": "/token"}), "does not answer (TooManyRedirects)"),
    "no HTTP": (lambda: Answer(raw=b"s3cret\r\n\r\n"), "does not answer (ConnectionError)"),
    "a token that does not help": (lambda: Answer(token(TOKEN)), "answers 401 Unauthorized"),
}


@pytest.mark.parametrize(("answer", "reason"), TOKENS.values(), ids=TOKENS)
def test_a_token_server_with_invalid_responses(
    run: Run, server: HostileServer, tmp_path: Path, answer: Callable[[], Answer], reason: str
) -> None:
    server.answers["/token"] = answer()
    refusing = Answer(b"{}", 401, {"WWW-Authenticate": challenge(server).headers["WWW-Authenticate"]})
    server.answers["x/manifests/v1"] = refusing
    config = write_docker_config(tmp_path, {"auths": {server.address: {"auth": BASIC}}})

    assert reason in error(run, server, DOCKER_CONFIG=config)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer realm",
        'Bearer realm=""',
        'Bearer realm="ftp://x/"',
        'Bearer realm="http://[::/"',
        'Bearer realm="http://127.0.0.999/"',
        'Bearer realm="http://127.0.0.1:1/",service=,scope="' + "x" * 50_000 + '"',
        'Bearer realm="/token"',
        "Negotiate",
        "Basic",
        "\x1b[31m",
        "," * 50_000,
        "Bearer " + 'a="' * 20_000,
    ],
)
def test_an_invalid_challenge(run: Run, server: HostileServer, tmp_path: Path, header: str) -> None:
    server.challenge = Answer(b"{}", 401, {"WWW-Authenticate": header})
    config = write_docker_config(tmp_path, {"auths": {server.address: {"auth": BASIC}}})
    server.answers["x/manifests/v1"] = server.challenge

    assert error(run, server, DOCKER_CONFIG=config)


def test_another_server_gets_no_credentials(run: Run, server: HostileServer, tmp_path: Path) -> None:
    """Registries redirect requests for layers to other servers. Here the other server requests a password."""
    config = write_docker_config(tmp_path, {"auths": {server.address: {"auth": BASIC}}})
    server.answers["/token"] = Answer(token(TOKEN))
    with hostile_server() as other:
        other.challenge = challenge(other)
        server.answers["x/manifests/v1"] = Answer(b"", 307, {"Location": f"{other.url}/v2/x/manifests/v1"})
        message = error(run, server, DOCKER_CONFIG=config)

        assert "answers 401 Unauthorized" in message
        assert other.asked == [("x/manifests/v1", None)]
    assert [path.partition("?")[0] for path, _ in server.asked] == ["x/manifests/v1", "/token", "x/manifests/v1"]


HELPERS: dict[str, tuple[str, str]] = {
    "rubbish": ("echo s3cret", "did not return Username and Secret"),
    "no text": ("printf '\\377\\376'", "did not return Username and Secret"),
    "a list": ("echo '[1, 2]'", "did not return Username and Secret"),
    "a name alone": ("""echo '{"Username": "s3cret"}'""", "did not return Username and Secret"),
    "numbers": ("""echo '{"Username": 1, "Secret": 2}'""", "answers 401 Unauthorized"),
    "100 MB": ("head -c 100000000 /dev/zero | tr '\\0' x", "did not return Username and Secret"),
    "100 MB of errors": ("head -c 100000000 /dev/zero | tr '\\0' x >&2; exit 1", "failed. Check credsStore"),
    "nothing": ("true", "did not return Username and Secret"),
    "nested": ("head -c 100000 /dev/zero | tr '\\0' '['", "did not return Username and Secret"),
    "a failure with the secret": ("echo s3cret; echo s3cret >&2; exit 7", "failed. Check credsStore"),
    "nothing for this registry": ("echo credentials not found in native keychain; exit 1", "answers 401 Unauthorized"),
    "empty": ("""echo '{"Username": "", "Secret": ""}'""", "answers 401 Unauthorized"),
    "a password with a line break": (
        """echo '{"Username": "a", "Secret": "s3cret\\\\n"}'""",
        "answers 401 Unauthorized",
    ),
    "a child that stays": (f"sleep 100 & {GIVES_PASSWORD}", "answers 401 Unauthorized"),
}


@pytest.mark.parametrize(("script", "reason"), HELPERS.values(), ids=HELPERS)
def test_a_credential_helper_with_invalid_output(
    run: Run, server: HostileServer, tmp_path: Path, script: str, reason: str
) -> None:
    server.challenge = server.answers["x/manifests/v1"] = Answer(b"{}", 401, {"WWW-Authenticate": 'Basic realm="x"'})
    write_helper(tmp_path, script)
    config = write_docker_config(tmp_path, {"credHelpers": {server.address: "vault"}})

    assert reason in error(run, server, DOCKER_CONFIG=config, PATH=f"{tmp_path}:/usr/bin:/bin")


def test_a_credential_helper_that_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_helper(tmp_path, "sleep 100")
    monkeypatch.setenv("DOCKER_CONFIG", write_docker_config(tmp_path, {"credsStore": "vault"}))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(registry_auth, "_HELPER_TIME", 0.3)

    with pytest.raises(ImageError, match=r"docker-credential-vault did not answer within 0.3 seconds."):
        registry_auth.find_credentials("x.example")


CONFIGS: dict[str, bytes | None] = {
    "no JSON": b"s3cret",
    "a list": b"[]",
    "a number": b"5",
    "no UTF-8": b"\xff\xfe",
    "nested": b'{"auths":' * 50_000,
    "auths of a list": b'{"auths": []}',
    "an entry of a string": b'{"auths": {"x": "s3cret"}}',
    "no base64": b'{"auths": {"ADDRESS": {"auth": "s3cret!!"}}}',
    "no colon": b'{"auths": {"ADDRESS": {"auth": "czNjcmV0"}}}',
    "auth of a number": b'{"auths": {"ADDRESS": {"auth": 5}}}',
    "no ASCII": b'{"auths": {"ADDRESS": {"auth": "\\u00e9"}}}',
    "helpers of a list": b'{"credHelpers": ["vault"]}',
    "a helper of a number": b'{"credHelpers": {"ADDRESS": 5}}',
    "a helper that climbs": b'{"credHelpers": {"ADDRESS": "../../bin/sh"}}',
    "a helper with NUL": b'{"credHelpers": {"ADDRESS": "x\\u0000y"}}',
    "a folder": None,
}


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_an_invalid_docker_configuration(
    run: Run, server: HostileServer, tmp_path: Path, content: bytes | None
) -> None:
    server.challenge = server.answers["x/manifests/v1"] = Answer(b"{}", 401, {"WWW-Authenticate": 'Basic realm="x"'})
    folder = tmp_path / "docker"
    folder.mkdir()
    if content is None:
        (folder / "config.json").mkdir()
    else:
        (folder / "config.json").write_bytes(content.replace(b"ADDRESS", server.address.encode()))

    assert error(run, server, DOCKER_CONFIG=str(folder))


def test_credentials_are_those_of_docker_py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`inspect` finds the same credentials as docker-py, so that it can read images that Prefect pushes."""
    from docker import auth

    unknown = "*) echo credentials not found in native keychain; exit 1"
    write_helper(tmp_path, f"read -r server; case $server in *hub*|*index*) {GIVES_PASSWORD};; {unknown};; esac")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    entries = {
        "a.example": {"auth": BASIC},
        "https://b.example/v1/": {"auth": BASIC},
        "c.example": {"identitytoken": "t"},
    }
    hub = {"https://index.docker.io/v1/": {"auth": BASIC}}
    configs: list[dict[str, Any]] = [
        {},
        {"auths": entries | hub},
        {"auths": entries, "credsStore": "vault"},
        {"auths": entries, "credHelpers": {"a.example": "vault", "hub.example": "vault"}},
        {"auths": {"a.example": {}}, "credHelpers": {"https://index.docker.io/v1/": "vault"}},
    ]
    for number, config in enumerate(configs):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setenv("DOCKER_CONFIG", write_docker_config(folder, config))
        for registry in ("docker.io", "a.example", "b.example", "c.example", "hub.example", "other.example"):
            theirs = auth.resolve_authconfig(auth.load_config(), registry) or {}
            wanted = {name[:1].upper() + name[1:]: value for name, value in theirs.items()}
            keys = {"Username", "Password", "IdentityToken"} & wanted.keys()
            assert registry_auth.find_credentials(registry) == {name: wanted[name] for name in keys}, (config, registry)


def test_a_valid_token_gives_access(run: Run, server: HostileServer, tmp_path: Path) -> None:
    server.answers["/token"] = Answer(token(TOKEN))
    config = write_docker_config(tmp_path, {"auths": {server.address: {"auth": BASIC}}})
    result = run("inspect", f"{server.address}/x:v1", "--json", DOCKER_CONFIG=config)

    assert (result.code, result.json["images"][0]["media_type"]) == (0, MANIFEST)
    assert {path.partition("?")[0]: header for path, header in server.asked}["/token"] == f"Basic {BASIC}"
    assert PASSWORD not in result.out
