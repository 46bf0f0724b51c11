"""Values reach the build unchanged: no secret is on a command line, and no value becomes a flag or a variable."""

from __future__ import annotations

import base64
import http.server
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.docker import DockerImage
from prefect.utilities.dockerutils import BuildError, build_image, docker_client

from support.names import BUSYBOX, PREFIX
from support.ways import HAS_BUILD_BACKEND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engines.private import Engine

pytestmark = pytest.mark.usefixtures("switched_on")

OURS = "prefect_docker_attest"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


def build(context: Path, content: str, stream: io.StringIO | None = None, **options: Any) -> str:
    (context / "Dockerfile").write_text(content)
    return build_image(context, stream_progress_to=stream, **options)


def output_of(image_id: str, *command: str) -> bytes:
    def docker(*arguments: str) -> bytes:
        return subprocess.run(["docker", *arguments], capture_output=True, check=True).stdout

    # `docker run` loses the output at times if the container is short.
    container = docker("run", "--detach", image_id, *command).decode().strip()
    assert docker("wait", container).strip() == b"0"
    output = docker("logs", container)
    docker("rm", "--force", "--volumes", container)
    return output


@contextmanager
def every_command_line() -> Iterator[set[bytes]]:
    """Record all command lines on this machine inside a ``with``."""
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for process in os.listdir("/proc"):
                if process.isdecimal():
                    with suppress(OSError):
                        seen.add(Path(f"/proc/{process}/cmdline").read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc of Linux")
@pytest.mark.usefixtures("engine")
def test_values_are_neither_on_a_command_line_nor_in_the_output(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = {name: f"{name}-{uuid4()}" for name in ("plain", "token", "inherited", "variable", "file")}
    monkeypatch.setenv("A_SECRET", values["variable"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", values["inherited"])
    (tmp_path / "secret").write_text(values["file"])
    mounts = "--mount=type=secret,id=one --mount=type=secret,id=two"
    # BuildKit names a step by its instruction with the values of build arguments.
    use = 'echo "$PLAIN $TOKEN $AWS_SECRET_ACCESS_KEY" > /all; cat /run/secrets/* >> /all; sleep 2'
    dockerfile = f"FROM {BUSYBOX}\nARG PLAIN TOKEN AWS_SECRET_ACCESS_KEY\nRUN {mounts} {use}\n"
    given: dict[str, Any] = {
        "buildargs": {"PLAIN": values["plain"], "TOKEN": values["token"], "AWS_SECRET_ACCESS_KEY": values["inherited"]},
        "secrets": ["id=one,env=A_SECRET", f"id=two,src={tmp_path}/secret"],
    }
    stream = io.StringIO()
    with caplog.at_level(logging.DEBUG), every_command_line() as seen:
        image_id = build(context, dockerfile, stream, **given)
        with pytest.raises(BuildError) as error:
            build(context, f'{dockerfile}RUN test "$PLAIN$TOKEN" = ""\n', stream, **given)

    assert output_of(image_id, "cat", "/all").decode().replace("\n", " ").split() == [
        *(values[name] for name in ("plain", "token", "inherited")),
        values["variable"] + values["file"],
    ]
    # The record contains the docker CLI, its plugin, and the command of the step.
    docker = {one.split(b"\0")[0].rpartition(b"/")[2] for one in seen if b"--build-arg=TOKEN" in one.split(b"\0")}
    assert docker == {b"docker", b"docker-buildx"}
    assert any(one.split(b"\0")[-3:-1] == [b"sleep", b"2"] for one in seen)
    assert use in stream.getvalue()
    assert '3/3] RUN test "$PLAIN$TOKEN" = "". The command' in str(error.value)
    told = [*(one.decode(errors="replace") for one in seen), stream.getvalue(), str(error.value), caplog.text]
    assert [each for each in told if any(value in each for value in values.values())] == []


# Standard error comes between the two parts of a value where a step waits, and in the last step at random: if the
# engine reads the first 65,536 bytes of standard output, then standard error.
LEAKY = r"""RUN set -x; : "$TOKEN"
RUN head -c 65508 /dev/zero | tr '\0' x; echo "$TOKEN"; \
    printf %s "$TOKEN" | head -c 8; sleep 0.3; printf %s "$TOKEN" | tail -c +9; echo; \
    printf '%s\033[31m%s\033[0m\n' "$(echo "$TOKEN" | head -c 8)" "$(echo "$TOKEN" | tail -c +9)"; \
    printf %s "me:$TOKEN" | base64; echo to%2Fken%2B-{number}
RUN printf %s "$TOKEN" | head -c 30; sleep 0.3; echo "$TOKEN" >&2; sleep 0.3; printf %s "$TOKEN" | tail -c +31; echo; \
    printf %s "$TOKEN" | head -c 10; sleep 0.3; echo other >&2; sleep 0.3; printf %s "$TOKEN" | tail -c +11; echo
RUN head -c 65508 /dev/zero | tr '\0' x; echo "$TOKEN" | tee /dev/stderr; exit 3
"""


def _by_docker_py(context: Path, **options: Any) -> str:
    with docker_client() as client:
        events: list[dict[str, str]] = list(map(json.loads, client.api.build(path=str(context), **options)))
    return "".join(event.get("stream") or event["error"] for event in events)


def _by_build_backend(context: Path, buildargs: dict[str, str]) -> str:
    stream = io.StringIO()
    with pytest.raises(BuildError) as error:
        DockerImage(
            f"{PREFIX}/leaky", "v1", "Dockerfile", stream, build_backend="buildx", context=context, build_args=buildargs
        ).build()
    return f"{stream.getvalue()}{error.value}{getattr(error.value.__cause__ or error.value, 'output', '')}"


def _by_build_image(context: Path, **options: Any) -> str:
    stream = io.StringIO()
    with pytest.raises(BuildError) as error:
        build_image(context, stream_progress_to=stream, **options)
    return f"{stream.getvalue()}{error.value}"


BUILDS = {"build_image": _by_build_image, "docker-py": _by_docker_py} | (
    {"build_backend": _by_build_backend} if HAS_BUILD_BACKEND else {}
)


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("way", BUILDS)
def test_a_step_cannot_print_a_credential(
    context: Path, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(context)
    number = str(uuid4())
    (context / "Dockerfile").write_text(f"FROM {BUSYBOX}\nARG TOKEN\n{LEAKY.format(number=number)}")
    shown = BUILDS[way](context, buildargs={"TOKEN": f"to/ken+-{number}"}) + caplog.text
    assert "x$TOKEN" in shown
    assert "+ : $TOKEN" in shown
    assert shown.count("$TOKEN") > 10
    # Half of the value, and of the value in Base64, is not there either.
    encoded = base64.b64encode(f"me:to/ken+-{number}".encode()).decode()
    assert not [text for text in (number[:18], number[18:], encoded[8:30], encoded[30:50]) if text in shown]


@pytest.mark.usefixtures("some_engine")
def test_a_failing_secret_is_not_printed(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    value = f"secret-{uuid4()}"
    (tmp_path / "large").write_text(value * 20_000)
    monkeypatch.setenv("VALUE", value)
    (context / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nRUN --mount=type=secret,id=a,required=true --mount=type=secret,id=b,required=true false\n"
    )
    for secrets, expected in (
        (["id=a,env=VALUE"], "not found"),
        (["id=a,env=VALUE", f"id=b,src={tmp_path}/large"], "too big"),
        (["id=a,env=VALUE", f"id=b,src={tmp_path}/nothing"], "no such file"),
        (["id=a,env=VALUE", "id=b,env=VALUE"], "exit code: 1"),
    ):
        shown = _by_build_image(context, secrets=secrets) + caplog.text
        assert expected in shown
        assert value not in shown


SABOTAGE = {
    "DOCKER_HOST": "tcp://127.0.0.1:1",
    "DOCKER_CONFIG": "/nowhere",
    "docker_context": "nowhere",
    "Docker_Tls_Verify": "1",
    "BUILDX_BUILDER": "nowhere",
    "BUILDKIT_PROGRESS": "rawjson",
    "PATH": "/nowhere",
    "LD_PRELOAD": "/nowhere.so",
    "HOME": "/nowhere",
    "TMPDIR": "/nowhere",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "https_proxy": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "AKIA",
    "aws_profile": "nobody",
    "GODEBUG": "nonsense",
    "SSL_CERT_FILE": "/nowhere",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "XDG_CONFIG_HOME": "/nowhere",
}


@pytest.mark.usefixtures("engine")
def test_reserved_names_reach_the_build_and_change_no_program(context: Path) -> None:
    arguments = "".join(f"ARG {name}\n" for name in SABOTAGE)
    values = " ".join(f'"${name}"' for name in SABOTAGE)
    # printf is a builtin of the shell, because there is no PATH here.
    image_id = build(
        context, f"FROM {BUSYBOX}\n{arguments}RUN printf '%s\\n' {values} > /arguments\n", buildargs=SABOTAGE
    )
    assert output_of(image_id, "cat", "/arguments").decode().splitlines() == list(SABOTAGE.values())


class _Doorkeeper(http.server.BaseHTTPRequestHandler):
    """A registry that requires a password and has no images."""

    def handle(self) -> None:
        # Engines try TLS first. They switch to plain HTTP only after a response in HTTP.
        if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        else:
            super().handle()

    def do_GET(self) -> None:
        if "Authorization" in self.headers:
            self.send_response(404)
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 the name is http.server's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is http.server's
        """Do not log requests."""


@pytest.fixture
def doorkeeper(engine_is_here: None) -> Iterator[str]:  # noqa: ARG001 it listens here
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Doorkeeper) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


HELPER = """#!/bin/sh
# What a credential helper sees of build arguments.
tr '\\0' '\\n' < /proc/self/environ > "{record}"
echo '{{"ServerURL": "x", "Username": "user", "Secret": "password"}}'
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc of Linux")
def test_a_credential_helper_sees_no_reserved_name(
    some_engine: Engine, context: Path, doorkeeper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper, record = tmp_path / "docker-credential-recorder", tmp_path / "record"
    helper.write_text(HELPER.format(record=record))
    helper.chmod(0o755)
    config = tmp_path / "config"
    shutil.copytree(some_engine.environment["DOCKER_CONFIG"], config, symlinks=True)
    (config / "config.json").write_text(json.dumps({"credHelpers": {doorkeeper: "recorder"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    monkeypatch.setenv("PATH", f"{tmp_path}:{some_engine.environment['PATH']}")
    with pytest.raises(BuildError, match="not found"):
        build(context, f"FROM {doorkeeper}/image\n", buildargs={**SABOTAGE, "PLAIN": "passed on"}, pull=True)

    seen = dict(line.split("=", 1) for line in record.read_text().splitlines() if "=" in line)
    # This shows that the helper would have seen the other variables too.
    assert seen["PLAIN"] == "passed on"
    assert seen["PATH"] == os.environ["PATH"]
    assert {name: seen[name] for name in SABOTAGE if seen.get(name) == SABOTAGE[name]} == {}


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", ["PLAIN", "AWS_SECRET_ACCESS_KEY"])
def test_a_value_that_is_too_long_is_refused_with_a_message(context: Path, name: str) -> None:
    with pytest.raises(BuildError, match="128 KiB for one value") as error:
        build(context, f"FROM {BUSYBOX}\n", buildargs={name: "secret" * 40_000})
    assert "secretsecret" not in str(error.value)
    assert "secrets=['id=NAME,src=FILE']" in str(error.value)


@pytest.mark.usefixtures("some_engine")
def test_a_value_of_100_kib_reaches_the_build(context: Path) -> None:
    image_id = build(
        context, f'FROM {BUSYBOX}\nARG LONG\nRUN printf %s "$LONG" > /long\n', buildargs={"LONG": "long" * 25_000}
    )
    assert output_of(image_id, "wc", "-c", "/long").split()[0] == b"100000"


@pytest.mark.usefixtures("some_engine")
def test_one_warning_for_a_credential_on_the_command_line(context: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {
        "AWS_SECRET_ACCESS_KEY": "very secret",
        "AWS_SESSION_TOKEN": "very secret",
        "AWS_REGION": "x",
        "TOKEN": "x",
    }
    build(context, f"FROM {BUSYBOX}\n", buildargs=given)
    (warning,) = [record for record in caplog.records if record.name == OURS]
    assert warning.levelno == logging.WARNING
    message = warning.getMessage()
    assert "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN are visible on the command line of the build" in message
    assert "secrets=['id=NAME,env=NAME']" in message
    assert "very secret" not in caplog.text


NASTY = [
    "--help", "-", "", " two  words ", "'single'", '"double"', "two\nlines\n", "return\r\n", "tab\t", "a,b=c", "=",
    "$(id) `id` $HOME", ";&|<>*?~!#%\\", "é \u202e 😀", "{{.}}", "x" * 50_000,
]  # fmt: skip


@pytest.mark.usefixtures("engine")
def test_special_characters_reach_the_build_unchanged(context: Path) -> None:
    buildargs = {f"A{number}": value for number, value in enumerate(NASTY)}
    labels = {f"label {value[:50]}".replace("=", ""): value for value in NASTY}
    names = " ".join(f'"${name}"' for name in buildargs)
    (context / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nARG {' '.join(buildargs)}\nRUN printf '%s\\0' {names} > /arguments\n"
    )
    with docker_client() as client:
        events: Any = client.api.build(path=str(context), buildargs=buildargs, labels=labels, decode=True)
        (image_id,) = [event["aux"]["ID"] for event in events if "aux" in event]
        assert client.images.get(image_id).labels == labels
    assert output_of(image_id, "cat", "/arguments") == b"".join(value.encode() + b"\0" for value in NASTY)


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "a target": ({"target": "--help"}, 'target stage "--help" could not be found'),
    "a tag": ({"tag": "--help"}, "invalid tag '--help': invalid reference format"),
    "a platform": ({"platform": "--help/x y"}, "platform"),
    "a builder": ({"builder": "--help"}, 'no builder "--help" found'),
    "a host": ({"extra_hosts": ["--help"]}, "invalid host --help"),
    "a Dockerfile": ({"dockerfile": "--help"}, "Cannot locate specified Dockerfile"),
    "what is not Unicode": ({"buildargs": {"A": "\ud800"}}, "buildargs['A']"),
}


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("what", REFUSED)
def test_an_invalid_value_is_refused_with_a_message(context: Path, what: str) -> None:
    options, expected = REFUSED[what]
    with pytest.raises(BuildError) as error:
        build(context, f"FROM {BUSYBOX}\n", **options)
    assert expected in str(error.value)


FOLDERS = [
    "-", "--", "--help", "-f", "with space", "new\nline", "a,b=c", "é😀", "$HOME", "not utf-8 \udcff", "http:",
]  # fmt: skip


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", FOLDERS, ids=ascii)
def test_a_folder_of_any_name_is_a_context(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    context, stream = Path(name), io.StringIO()
    context.mkdir()
    (context / "own").write_text(f"file of {name!a}\n")
    build(context, f"FROM {BUSYBOX}\nCOPY own /\nRUN cat /own\n", stream)
    assert f" file of {name!a}\n" in stream.getvalue()
