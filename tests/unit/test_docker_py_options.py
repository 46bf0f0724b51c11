"""Every parameter of docker-py's ``build``, and every option of buildx's own: said by flags, or refused by name."""

from __future__ import annotations

import contextlib
import inspect
import io
from typing import TYPE_CHECKING, Any

import pytest
from docker import APIClient

from prefect_docker_attest import docker_py_options
from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import arguments

if TYPE_CHECKING:
    from pathlib import Path

# For each parameter: values, each with the flags that it makes, with a part of what its refusal says, or with the
# attributes of the call that are not the default ones.
DOCKER_PY: dict[str, list[tuple[Any, list[str] | str | dict[str, Any]]]] = {
    "path": [("/", ["/"]), ("https://example.com/x.git#main:docker", ["https://example.com/x.git#main:docker"])],
    "tag": [("a/b:c", ["--tag=a/b:c"]), ("A:b", "invalid tag"), ("", "invalid tag"), (1, "a text is needed, not int")],
    "quiet": [(True, ["--progress=quiet"]), (False, [])],
    "fileobj": [(io.BytesIO(b"FROM scratch"), ["-"])],
    "nocache": [(True, ["--no-cache"]), (False, [])],
    "rm": [(True, []), (False, [])],
    "timeout": [
        (60, {"silence_limit": 60.0}),
        ((3, 1.5), {"silence_limit": 1.5}),
        ((3, None), []),
        (0, "more than 0"),
        (True, "seconds"),
        ("60", "seconds"),
    ],
    "custom_context": [(False, [])],
    "encoding": [("gzip", [])],
    "pull": [(True, ["--pull"]), (False, [])],
    "forcerm": [(True, [])],
    "dockerfile": [
        ("Dockerfile", ["--file={path}/Dockerfile"]),
        ("./a/../-f", ["--file={path}/-f"]),
        ("{path}/a/b c", ["--file={path}/a/b c"]),
        ("a[1]", ["--file={path}/a[1]"]),  # there is none: buildx says so
        ("", []),
        (1, "a text is needed, not int"),
    ],
    "container_limits": [({"memory": 2**30}, "BuildKit does not limit"), ({}, [])],
    "decode": [(True, {"decode": True}), (False, [])],
    "buildargs": [
        ({"A": "1", "B": "", "C": None}, ["--build-arg=A", "--build-arg=B"]),
        ({"A": 1}, "the value of 'A' is of type int"),
        ({"A=B": "1"}, "holds '='"),
        ([], []),
        (["A=1"], "a mapping"),
    ],
    "gzip": [(True, []), (False, [])],
    "shmsize": [
        (2**26, ["--shm-size=67108864"]),
        ("67108864", ["--shm-size=67108864"]),
        (0, []),
        (-1, "bytes"),
        ("64m", "bytes"),
        (True, "bytes"),
    ],
    "labels": [({"a": "b=c", "d": ""}, ["--label=a=b=c", "--label=d="]), ({"a": 1}, "of type int"), ({}, [])],
    "cache_from": [
        (["type=registry,ref=a"], ["--cache-from=type=registry,ref=a"]),
        ([{"type": "local", "src": "a,b"}], ['--cache-from=type=local,"src=a,b"']),
        ([], []),
        (5, "a text or a list of texts"),
    ],
    "target": [("-x", ["--target=-x"]), ("", []), (1, "a text is needed, not int")],
    "network_mode": [
        ("none", ["--network=none"]),
        ("host", ["--network=host"]),
        ("default", []),
        ("bridge", []),
        ("", []),
        ("container:x", "'default', 'none' and 'host'"),
        ("mine", "'default', 'none' and 'host'"),
    ],
    "squash": [(True, "does not squash"), (False, [])],
    "extra_hosts": [
        ({"a": "1.2.3.4", "b": "::1"}, ["--add-host=a:1.2.3.4", "--add-host=b:::1"]),
        (["a:1.2.3.4"], ["--add-host=a:1.2.3.4"]),
        ("a:1.2.3.4", ["--add-host=a:1.2.3.4"]),
        (["a:1,b:2"], ['--add-host="a:1,b:2"']),
        ({}, []),
        (5, "a text or a list of texts"),
    ],
    "platform": [
        ("linux/arm64", ["--platform=linux/arm64"]),
        ("", []),
        ("a/b, c/d", ["--platform=a/b", "--platform=c/d"]),
    ],
    "isolation": [("default", []), ("", []), ("hyperv", "has no choice of it")],
    "use_config_proxy": [(False, {"config_proxies": False}), (None, {"config_proxies": False}), (True, [])],
}

BUILDX: dict[str, list[tuple[Any, list[str] | str | dict[str, Any]]]] = {
    "provenance": [
        (True, ["--provenance=true"]),
        (False, ["--provenance=false"]),
        ("mode=max", ["--provenance=mode=max"]),
        ({"mode": "max", "builder-id": "a,b"}, ['--provenance=mode=max,"builder-id=a,b"']),
        (1.5, "a text is needed"),
    ],
    "sbom": [
        (True, ["--sbom=true"]),
        (False, ["--sbom=false"]),
        ({"generator": "x"}, ["--sbom=generator=x"]),
    ],
    "attest": [
        ("type=sbom", ["--attest=type=sbom"]),
        (
            [{"type": "provenance", "mode": "min"}, "type=sbom"],
            ["--attest=type=provenance,mode=min", "--attest=type=sbom"],
        ),
    ],
    "secrets": [
        (["id=a,env=A", {"id": "b", "src": "/b,c"}], ["--secret=id=a,env=A", '--secret=id=b,"src=/b,c"']),
        ("A=1", "says where the secret is"),
    ],
    "ssh": [("default", ["--ssh=default"]), (["a=/a", "b"], ["--ssh=a=/a", "--ssh=b"])],
    "cache_to": [
        ("type=inline", ["--cache-to=type=inline"]),
        ({"type": "local", "dest": "a"}, ["--cache-to=type=local,dest=a"]),
    ],
    "build_contexts": [
        ({"a": "docker-image://b", "c": "/d"}, ["--build-context=a=docker-image://b", "--build-context=c=/d"])
    ],
    "platforms": [
        (["a/b", "c/d", "a/b"], ["--platform=a/b", "--platform=c/d"]),
        ("a/b,c/d", ["--platform=a/b", "--platform=c/d"]),
    ],
    "builder": [("other", ["--builder=other"]), ("", []), (5, "a text is needed")],
    "annotations": [
        ({"a": "b,c"}, ["--annotation=a=b,c"]),
        (["manifest:a=b"], ["--annotation=manifest:a=b"]),
    ],
    "push": [(True, "Prefect pushes"), (False, [])],
}

ROWS = [(name, *row) for name, rows in {**DOCKER_PY, **BUILDX}.items() for row in rows]


def test_the_table_has_every_parameter_of_this_docker_py() -> None:
    assert list(inspect.signature(APIClient.build).parameters) == ["self", *DOCKER_PY]


def test_the_table_has_every_option_of_buildx() -> None:
    assert set(BUILDX) == set(docker_py_options.BUILDX_ONLY)


@pytest.fixture
def without(tmp_path: Path) -> list[str]:
    """The arguments of a call without options."""
    return _arguments(docker_py_options.read({"path": str(tmp_path)}))


def _arguments(call: docker_py_options.DockerPyBuild) -> list[str]:
    with call.stdin or contextlib.nullcontext():
        return arguments(call.options, list(call.options.build_args), "/metadata")


@pytest.mark.parametrize(("name", "value", "expected"), ROWS, ids=[f"{row[0]}={row[1]!r}"[:60] for row in ROWS])
def test_each_value_is_said_or_refused(
    name: str, value: Any, expected: list[str] | str | dict[str, Any], tmp_path: Path, without: list[str]
) -> None:
    if isinstance(value, str):
        value = value.replace("{path}", str(tmp_path))
    given = {"path": str(tmp_path), name: value}
    if isinstance(expected, str):
        with pytest.raises(OptionError, match=f"^{name}") as refused:
            docker_py_options.read(given)
        assert expected in str(refused.value)
        return
    call = docker_py_options.read(given)
    said = [one for one in _arguments(call) if one not in without]
    attributes = expected if isinstance(expected, dict) else {}
    if name == "path" and call.options.context.startswith("https"):
        assert said.pop(0).startswith("--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR")
    assert said == ([] if attributes else [one.replace("{path}", str(tmp_path)) for one in expected])
    default = {"decode": False, "silence_limit": None, "config_proxies": True, "warnings": ()}
    assert {key: getattr(call, key) for key in default} == {**default, **attributes}


def test_an_option_of_a_docker_py_to_come_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^novelty=1 .* Upgrade it"):
        docker_py_options.read({"path": str(tmp_path), "novelty": 1})


def test_a_plain_image_as_cache_source_is_warned_of(tmp_path: Path) -> None:
    call = docker_py_options.read({"path": str(tmp_path), "cache_from": ["app:1", "type=registry,ref=x"]})
    assert call.options.cache_from == ("app:1", "type=registry,ref=x")
    assert len(call.warnings) == 1
    assert "cache_from=['app:1']" in call.warnings[0]


def test_a_dockerfile_outside_comes_on_standard_input(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    call = docker_py_options.read({"path": str(tmp_path / "context"), "dockerfile": "../Dockerfile"})
    assert call.options.file == "-"
    assert call.stdin
    with call.stdin:
        assert call.stdin.read() == b"FROM scratch"


@pytest.mark.parametrize(
    ("given", "wants"),
    [
        ({"path": ".", "tag": "x", "platform": "linux/arm64", "cache_from": ["a:b"]}, False),
        ({"provenance": None, "push": None, "ssh": None}, False),
        *[({name: rows[0][0]}, True) for name, rows in BUILDX.items()],
        ({"provenance": False}, True),
        ({"platform": "linux/amd64,linux/arm64"}, True),
        ({"cache_from": ["a:b", "type=local,src=x"]}, True),
        ({"cache_from": [{"type": "local", "src": "x"}]}, True),
    ],
    ids=str,
)
def test_only_what_docker_py_cannot_do_wants_buildx(given: dict[str, Any], wants: bool) -> None:
    assert docker_py_options.wants_buildx(given) is wants
