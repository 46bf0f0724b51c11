"""Every parameter of docker-py's ``build`` and every buildx-only option: converted into flags, or refused by name."""

from __future__ import annotations

import contextlib
import inspect
import io
from typing import TYPE_CHECKING, Any

import pytest
from docker import APIClient

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import docker_py_options
from prefect_docker_attest.options.table import ROWS, arguments

if TYPE_CHECKING:
    from pathlib import Path

    from prefect_docker_attest.options.request import BuildRequest

# Strings that the engine reads as false, for example from a YAML template.
_OFF: list[tuple[Any, list[str] | str | dict[str, Any]]] = [
    (text, []) for text in ("", "0", "no", "false", "False", " none ")
]

# For each parameter: values, each with the resulting flags, with a part of the error, or with the attributes of the
# result that are not the defaults.
DOCKER_PY: dict[str, list[tuple[Any, list[str] | str | dict[str, Any]]]] = {
    "path": [("/", ["/"]), ("https://example.com/x.git#main:docker", ["https://example.com/x.git#main:docker"])],
    "tag": [("a/b:c", ["--tag=a/b:c"]), ("A:b", "invalid tag"), ("", "invalid tag"), (1, "must be a string, not int")],
    "quiet": [(True, ["--progress=quiet"]), (False, []), ("yes", ["--progress=quiet"]), *_OFF],
    "fileobj": [(io.BytesIO(b"FROM scratch"), ["-"])],
    "nocache": [(True, ["--no-cache"]), (False, []), ("true", ["--no-cache"]), *_OFF],
    "rm": [(True, []), ("false", [])],
    "timeout": [
        (60, {"idle_timeout": 60.0}),
        ((3, 1.5), {"idle_timeout": 1.5}),
        ((3, None), []),
        (0, "more than 0"),
        (True, "seconds"),
        ("60", "seconds"),
    ],
    "custom_context": [(False, [])],
    "encoding": [("gzip", [])],
    "pull": [(True, ["--pull"]), (False, []), ("1", ["--pull"]), *_OFF],
    "forcerm": [(True, [])],
    "dockerfile": [
        ("Dockerfile", ["--file={path}/Dockerfile"]),
        ("./a/../-f", ["--file={path}/-f"]),
        ("{path}/a/b c", ["--file={path}/a/b c"]),
        ("a[1]", ["--file={path}/a[1]"]),  # the file does not exist: buildx reports this
        ("", []),
        (1, "must be a string, not int"),
    ],
    "container_limits": [({"memory": 2**30}, "buildx before 0.35 cannot limit"), ({}, [])],
    "decode": [(True, []), (False, [])],
    "buildargs": [
        ({"A": "1", "B": "", "C": None}, ["--build-arg=A", "--build-arg=B"]),
        ({"A": 1}, "buildargs['A'] must be a string, not int.\nTIP Write the value in quotes"),
        ({"A=B": "1"}, "has the name 'A=B'"),
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
    "labels": [
        ({"a": "b=c", "d": ""}, ["--label=a=b=c", "--label=d="]),
        ({"a": 1}, "labels['a'] must be a string, not int."),
        ({}, []),
    ],
    "cache_from": [
        (["type=registry,ref=a"], ["--cache-from=type=registry,ref=a"]),
        ([{"type": "local", "src": "a,b"}], ['--cache-from=type=local,"src=a,b"']),
        ([], []),
        (5, "must be a string or a list of strings"),
    ],
    "target": [("-x", ["--target=-x"]), ("", []), (1, "must be a string, not int")],
    "network_mode": [
        ("none", ["--network=none"]),
        ("host", ["--network=host"]),
        ("default", []),
        ("bridge", []),
        ("", []),
        ("container:x", "'default', 'none' and 'host'"),
        ("mine", "'default', 'none' and 'host'"),
    ],
    "squash": [(True, "does not squash"), (False, []), ("false", [])],
    "extra_hosts": [
        ({"a": "1.2.3.4", "b": "::1"}, ["--add-host=a:1.2.3.4", "--add-host=b:::1"]),
        (["a:1.2.3.4"], ["--add-host=a:1.2.3.4"]),
        ("a:1.2.3.4", ["--add-host=a:1.2.3.4"]),
        (["a:1,b:2"], ['--add-host="a:1,b:2"']),
        ({}, []),
        (5, "must be a string or a list of strings"),
    ],
    "platform": [
        ("linux/arm64", ["--platform=linux/arm64"]),
        ("", []),
        ("linux/amd64, linux/aarch64", ["--platform=linux/amd64", "--platform=linux/aarch64"]),
        ("linux-amd64", "is not a platform.\nTIP Write 'linux/amd64'. A platform is OS/ARCHITECTURE"),
        ("local", ["--platform=local"]),
    ],
    "isolation": [("default", []), ("", []), ("hyperv", "has no isolation technologies")],
    "use_config_proxy": [(False, {"config_proxies": False}), (None, {"config_proxies": False}), (True, [])],
}

BUILDX: dict[str, list[tuple[Any, list[str] | str | dict[str, Any]]]] = {
    "provenance": [
        (True, ["--provenance=true"]),
        (False, ["--provenance=false"]),
        ("mode=max", ["--provenance=mode=max"]),
        ({"mode": "max", "builder-id": "a,b"}, ['--provenance=mode=max,"builder-id=a,b"']),
        (1.5, "must be a string"),
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
        ("A=1", "must be strings of the form 'id=NAME,env=VARIABLE'"),
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
        (["linux/amd64", "wasi/wasm", "linux/amd64"], ["--platform=linux/amd64", "--platform=wasi/wasm"]),
        ("linux/arm/v6,windows(10.0.17763)/amd64", ["--platform=linux/arm/v6", "--platform=windows(10.0.17763)/amd64"]),
        (["linux/amd64", "arm64v8"], "Write 'arm64/v8'"),
    ],
    "builder": [("other", ["--builder=other"]), ("", []), (5, "must be a string")],
    "annotations": [
        ({"a": "b,c"}, ["--annotation=a=b,c"]),
        (["manifest:a=b"], ["--annotation=manifest:a=b"]),
    ],
    "media_types": [
        ("docker", ["--output=type=docker,oci-mediatypes=false"]),
        (" OCI", ["--output=type=docker,oci-mediatypes=true"]),
        ("", []),
        ("zstd", "'docker' or 'oci'"),
        (1, "must be a string, not int"),
    ],
    "compression": [
        ("zstd", ["--output=type=docker,compression=zstd"]),
        (" ZSTD:22 ", ["--output=type=docker,compression=zstd,compression-level=22"]),
        ("gzip", ["--output=type=docker,compression=gzip,force-compression=true"]),
        ("gzip:0", ["--output=type=docker,compression=gzip,compression-level=0,force-compression=true"]),
        ("uncompressed", ["--output=type=docker,compression=uncompressed"]),
        ("", []),
        ("gzip:99", "level from 0 to 9"),
        ("zstd:23", "level from 0 to 22"),
        ("zstd:-1", "'zstd', 'gzip' or 'uncompressed'"),
        ("zstd:\u0663", "'zstd', 'gzip' or 'uncompressed'"),
        ("zstd:3,rewrite-timestamp=true", "'zstd', 'gzip' or 'uncompressed'"),
        ("uncompressed:1", "uncompressed has none"),
        ("estargz", "'zstd', 'gzip' or 'uncompressed'"),
        (3, "must be a string, not int"),
    ],
    "push": [(True, "Prefect pushes"), (False, []), ("false", []), ("true", "Prefect pushes")],
    "no_cache_filter": [("a", ["--no-cache-filter=a"]), (["a", "b"], ["--no-cache-filter=a", "--no-cache-filter=b"])],
    "ulimit": [(["nofile=1:2", "core=0"], ["--ulimit=nofile=1:2", "--ulimit=core=0"]), ({"a": "1"}, ["--ulimit=a=1"])],
    "cgroup_parent": [("/a/b", ["--cgroup-parent=/a/b"]), ("", []), (1, "must be a string, not int")],
    "allow": [("network.host", ["--allow=network.host"]), (["a", "b"], ["--allow=a", "--allow=b"])],
}

VALUES = [(name, *value) for name, values in {**DOCKER_PY, **BUILDX}.items() for value in values]


def test_every_parameter_of_this_docker_py_has_test_values() -> None:
    assert list(inspect.signature(APIClient.build).parameters) == ["self", *DOCKER_PY]


def test_every_buildx_only_option_has_test_values() -> None:
    assert set(BUILDX) == docker_py_options.BUILDX_ONLY


def test_table_and_special_options_make_docker_py_s_signature() -> None:
    rows = [row.docker_py for row in ROWS if row.docker_py]
    refused = docker_py_options.REFUSED.keys() - docker_py_options.BUILDX_ONLY
    accounted_for = [*rows, *docker_py_options.SPECIAL, *docker_py_options.IGNORED, *refused]
    assert sorted(accounted_for) == sorted(inspect.signature(APIClient.build).parameters.keys() - {"self"})


@pytest.fixture
def without(tmp_path: Path) -> list[str]:
    """The arguments for a call without options."""
    return _arguments(docker_py_options.docker_py_request({"path": str(tmp_path)}))


def _arguments(call: BuildRequest) -> list[str]:
    with call.stdin or contextlib.nullcontext():
        return arguments(call.options, list(call.options.build_args), "/metadata")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    VALUES,
    # Addresses in memory are not the same in two processes.
    ids=[f"{value[0]}={value[1]!r}"[:60].partition(" object at ")[0] for value in VALUES],
)
def test_each_value_is_converted_or_refused(
    name: str, value: Any, expected: list[str] | str | dict[str, Any], tmp_path: Path, without: list[str]
) -> None:
    if isinstance(value, str):
        value = value.replace("{path}", str(tmp_path))
    given = {"path": str(tmp_path), name: value}
    if isinstance(expected, str):
        with pytest.raises(OptionError, match=f"^{name}") as refused:
            docker_py_options.docker_py_request(given)
        assert expected in str(refused.value)
        return
    call = docker_py_options.docker_py_request(given)
    arguments_of_it = [argument for argument in _arguments(call) if argument not in without]
    attributes = expected if isinstance(expected, dict) else {}
    if name == "path" and call.options.context.startswith("https"):
        assert arguments_of_it.pop(0).startswith("--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR")
    assert arguments_of_it == (
        [] if attributes else [argument.replace("{path}", str(tmp_path)) for argument in expected]
    )
    default = {"idle_timeout": None, "config_proxies": True, "warnings": ()}
    assert {key: getattr(call, key) for key in default} == {**default, **attributes}


def test_an_option_of_a_future_docker_py_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^novelty=1 is not supported by this version.*\nTIP Run `pip install"):
        docker_py_options.docker_py_request({"path": str(tmp_path), "novelty": 1})


def test_an_image_as_cache_source_causes_a_warning(tmp_path: Path) -> None:
    call = docker_py_options.docker_py_request({"path": str(tmp_path), "cache_from": ["app:1", "type=registry,ref=x"]})
    assert call.options.cache_from == ("app:1", "type=registry,ref=x")
    assert len(call.warnings) == 1
    assert "cache_from=['app:1']" in call.warnings[0]


def test_a_dockerfile_outside_the_context_is_passed_on_standard_input(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    call = docker_py_options.docker_py_request({"path": str(tmp_path / "context"), "dockerfile": "../Dockerfile"})
    assert call.options.file == "-"
    assert call.stdin
    with call.stdin:
        assert call.stdin.read() == b"FROM scratch"


@pytest.mark.parametrize(
    ("given", "wants"),
    [
        ({"path": ".", "tag": "x", "platform": "linux/arm64", "cache_from": ["a:b"]}, False),
        ({"provenance": None, "push": None, "ssh": None}, False),
        *[({name: values[0][0]}, True) for name, values in BUILDX.items()],
        ({"provenance": False}, True),
        ({"platform": "linux/amd64,linux/arm64"}, True),
        ({"cache_from": ["a:b", "type=local,src=x"]}, True),
        ({"cache_from": [{"type": "local", "src": "x"}]}, True),
    ],
    ids=str,
)
def test_only_options_that_docker_py_lacks_need_buildx(given: dict[str, Any], wants: bool) -> None:
    assert docker_py_options.wants_buildx(given) is wants
