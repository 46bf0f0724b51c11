"""Every option of python-on-whales' ``buildx.build``: converted into flags, or refused by name."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from prefect_docker_attest.errors import OptionError
from prefect_docker_attest.options import whales_options
from prefect_docker_attest.options.table import ROWS, arguments

whales = pytest.importorskip("python_on_whales")

# For each option: values, each with the resulting flags, or with a part of the error.
VALUES: dict[str, list[tuple[Any, list[str] | str]]] = {
    "context_path": [("/context", ["/context"]), (Path("/context"), ["/context"]), (1, "must be a string")],
    "add_hosts": [({"a": "1.2.3.4"}, ["--add-host=a:1.2.3.4"])],
    "allow": [(["network.host"], ["--allow=network.host"]), ([], [])],
    "attest": [({"type": "sbom", "generator": "x"}, ["--attest=type=sbom,generator=x"])],
    "build_args": [
        ({"A": "1"}, ["--build-arg=A"]),
        ({"A": 1}, "build_args['A'] must be a string, not int.\nTIP Write the value in quotes"),
    ],
    "build_contexts": [({"a": Path("/b")}, ["--build-context=a=/b"])],
    "builder": [
        ("x", ["--builder=x"]),
        (type("Builder", (), {"name": "x"})(), ["--builder=x"]),
        (1, "must be a string"),
    ],
    "cache": [(False, ["--no-cache"]), (True, []), (None, ["--no-cache"]), ("false", ["--no-cache"]), ("true", [])],
    "cache_from": [("a", ["--cache-from=a"]), ([{"type": "gha"}], ["--cache-from=type=gha"])],
    "cache_to": [({"type": "inline"}, ["--cache-to=type=inline"])],
    "file": [("/other/Dockerfile", ["--file=/other/Dockerfile"]), (Path("/a/../b"), ["--file=/b"])],
    "labels": [({"a": "b"}, ["--label=a=b"])],
    "load": [(True, []), (False, [])],
    "metadata_file": [("/metadata", [])],
    "network": [("host", ["--network=host"]), ("default", []), ("mine", "'default', 'none' and 'host'")],
    "output": [
        ({"type": "registry"}, ["--push"]),
        ({"type": "image", "push": "true"}, ["--push"]),
        ({"type": "docker"}, []),
        ({"type": "docker", "oci-mediatypes": "true"}, ["--output=type=docker,oci-mediatypes=true"]),
        ({"type": "registry", "oci-mediatypes": "false"}, ["--output=type=registry,oci-mediatypes=false"]),
        ({"type": "image", "push": "true", "oci-mediatypes": False}, ["--output=type=registry,oci-mediatypes=false"]),
        ({"type": "docker", "compression": "zstd"}, ["--output=type=docker,compression=zstd"]),
        (
            {"type": "registry", "compression": "gzip", "compression-level": 1},
            ["--output=type=registry,compression=gzip,compression-level=1,force-compression=true"],
        ),
        ({"type": "docker", "compression": "estargz"}, "'zstd', 'gzip' or 'uncompressed'"),
        ({"type": "docker", "compression": "zstd", "compression-level": "23"}, "level from 0 to 22"),
        ({"type": "docker", "compression-level": "3"}, "without a compression"),
        ({"type": "docker", "compression": "zstd", "force-compression": "true"}, "Prefect needs the image in"),
        ({"type": "local", "oci-mediatypes": "true"}, "Prefect needs the image in"),
        ({}, []),
        ({"type": "local", "dest": "x"}, "Prefect needs the image in"),
    ],
    "platforms": [
        (["linux/amd64", "arm64"], ["--platform=linux/amd64", "--platform=arm64"]),
        (["x64"], "Write 'amd64'"),
    ],
    "progress": [(False, []), ("tty", [])],
    "provenance": [(True, ["--provenance=true"]), ({"mode": "max"}, ["--provenance=mode=max"])],
    "pull": [(True, ["--pull"]), (False, [])],
    "push": [(True, ["--push"]), (False, [])],
    "sbom": [(False, ["--sbom=false"])],
    "secrets": [("id=a,env=A", ["--secret=id=a,env=A"]), ("A=1", "must be strings of the form 'id=NAME,env=VARIABLE'")],
    "ssh": [("default", ["--ssh=default"])],
    "stream_logs": [(True, [])],
    "tags": [("a", ["--tag=a"]), (["a", "b"], ["--tag=a", "--tag=b"])],
    "target": [("x", ["--target=x"]), ("", [])],
}
ONE_BY_ONE = [(name, *value) for name, values in VALUES.items() for value in values]


@pytest.mark.skipif(
    not any(find_spec(f"prefect.{name}") for name in ("_internal.buildx", "docker._buildx")),
    reason="this Prefect has no build_backend, and its python-on-whales may be older",
)
def test_table_and_special_options_make_the_signature_of_this_python_on_whales() -> None:
    rows = [row.python_on_whales for row in ROWS if row.python_on_whales]
    accounted_for = [*rows, *whales_options.SPECIAL, *whales_options.IGNORED]
    assert sorted(accounted_for) == sorted(inspect.signature(whales.docker.buildx.build).parameters)


def test_every_option_has_test_values() -> None:
    rows = {row.python_on_whales for row in ROWS if row.python_on_whales}
    assert set(VALUES) == rows | whales_options.SPECIAL.keys() | whales_options.IGNORED.keys()


def _arguments(**options: Any) -> list[str]:
    read = whales_options.whales_request({"context_path": "/somewhere", **options})
    return arguments(read.options, list(read.options.build_args), "/metadata.json")


@pytest.mark.parametrize(
    ("name", "value", "expected"), ONE_BY_ONE, ids=[f"{value[0]}={value[1]!r}"[:60] for value in ONE_BY_ONE]
)
def test_each_value_is_converted_or_refused(name: str, value: Any, expected: list[str] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(OptionError, match=f"^{name}") as refused:
            _arguments(**{name: value})
        assert expected in str(refused.value)
        return
    without = _arguments()
    assert [argument for argument in _arguments(**{name: value}) if argument not in without] == expected


@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"context_path", "cache"}))
def test_none_counts_as_unset(name: str) -> None:
    assert _arguments(**{name: None}) == _arguments()


def test_an_option_that_python_on_whales_lacks_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'annotations'"):
        whales_options.whales_request({"context_path": "/", "annotations": {"a": "b"}})
