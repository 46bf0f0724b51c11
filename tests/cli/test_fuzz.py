"""`inspect` and `doctor` with random responses of registries, engines, docker and profiles.

FUZZ_EXAMPLES=20000 in the environment runs this number of examples for each test.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import string
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from prefect_docker_attest.doctor.docker_commands import CommandError
from prefect_docker_attest.doctor.doctor_report import Report
from prefect_docker_attest.doctor.engine_facts import EngineFacts
from prefect_docker_attest.doctor.prefect_facts import find_facts
from prefect_docker_attest.images import inspection_report, layer_files, tar_stream
from prefect_docker_attest.images.engine_api import InvalidResponseError
from prefect_docker_attest.images.executables import read_executable
from prefect_docker_attest.images.filesystem import Filesystem
from prefect_docker_attest.images.inspections import inspect_images
from prefect_docker_attest.images.programs import MEMORY
from prefect_docker_attest.images.stream import PieceReader
from prefect_docker_attest.terminal import Bars
from support.doctor_answers import findings
from support.hostile import Answer, HostileServer, hostile_server
from support.pushing import CONFIG, MANIFEST, tar_layer
from support.random_images import changed

if TYPE_CHECKING:
    from collections.abc import Iterator

INDEX = "application/vnd.oci.image.index.v1+json"
PLATFORM = {"os": "linux", "architecture": "amd64"}
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
paths_in = st.lists(st.integers(0, 40), max_size=8)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        yield server


def documents(server: HostileServer) -> dict[str, tuple[Any, str]]:
    """Return an index with an image and an attestation, and the documents that it lists."""
    layer = server.blob(tar_layer("file"))
    config = {**PLATFORM, "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]}, "rootfs": {"diff_ids": [layer["digest"]]}}
    manifest = {"mediaType": MANIFEST, "config": server.blob(json.dumps(config).encode(), CONFIG), "layers": [layer]}
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": layer["digest"]}
    statement = {**layer, "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}}
    entries = [
        {**server.serve("manifest", manifest), "platform": PLATFORM},
        {**server.serve("a", {**manifest, "layers": [statement]}), "annotations": annotations},
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return {"index": (index, INDEX), "manifest": (manifest, MANIFEST), "config": (config, CONFIG)}


def inspected(server: HostileServer) -> None:
    """Inspect the served image and print the result, without an exception and without control characters."""
    (result,) = inspect_images([f"{server.address}/x:fuzz"], Bars().meter, engine=False, verify_layers=True)
    console = Console(file=io.StringIO(), width=80)
    assert "bug" not in result.error
    if result.inspection:
        inspection_report.show_inspection(console, result.inspection, [], result.republish)
    else:
        assert result.error
        inspection_report.show_error(console, result)
    server.answers.clear()  # thousands of examples would use too much memory
    server.asked.clear()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(character == "\n" or character.isprintable() for character in shown)


@FUZZ
@given(kind=st.sampled_from(["index", "manifest", "config"]), way=paths_in, value=anything)
def test_documents_of_a_registry_with_one_value_changed(
    server: HostileServer, kind: str, way: list[int], value: Any
) -> None:
    good = documents(server)
    document, media_type = good[kind]
    document = changed(document, way, value)
    if kind == "config":
        manifest, media_type = good["manifest"]
        document = {**manifest, "config": server.blob(json.dumps(document).encode(), CONFIG)}
    server.serve("fuzz", document, media_type)
    inspected(server)


@FUZZ
@given(
    body=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()),
    status=st.sampled_from([200, 200, 200, 204, 301, 401, 403, 404, 429, 500, 599]),
    media_type=st.sampled_from([INDEX, MANIFEST, "text/html", ""]) | st.text(string.printable[:95], max_size=30),
    headers=st.dictionaries(
        st.sampled_from(["Location", "WWW-Authenticate", "Content-Encoding"]),
        st.text(string.printable[:95], max_size=60),
    ),
)
def test_answers_of_a_registry(
    server: HostileServer, body: bytes, status: int, media_type: str, headers: dict[str, str]
) -> None:
    server.answers["x/manifests/fuzz"] = Answer(body, status, {"Content-Type": media_type, **headers})
    inspected(server)


@FUZZ
@given(raw=st.binary(max_size=300) | st.binary(max_size=60).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest))
def test_bytes_of_a_registry(server: HostileServer, raw: bytes) -> None:
    server.answers["x/manifests/fuzz"] = Answer(raw=raw)
    inspected(server)


@FUZZ
@given(at=st.integers(0, 3000), piece=st.binary(max_size=12), compressed=st.booleans(), cut=st.integers(0, 3000))
def test_layers_with_a_damaged_place(server: HostileServer, at: int, piece: bytes, compressed: bool, cut: int) -> None:
    tar = gzip.decompress(tar_layer("bin/sh", 300))
    content = gzip.compress(tar) if compressed else tar
    at %= len(content)
    content = (content[:at] + piece + content[at + len(piece) :])[: len(content) - cut % len(content)]
    manifest, media_type = documents(server)["manifest"]
    server.serve("fuzz", {**manifest, "layers": [server.blob(content)]}, media_type)
    inspected(server)


@FUZZ
@given(
    start=st.sampled_from(
        [b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x02", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe"]
    ),
    rest=st.binary(max_size=200),
)
def test_beginnings_of_executables(start: bytes, rest: bytes) -> None:
    found = read_executable(start + rest)
    assert found is None or found.platform.split("/")[1]


names = st.text("ab./ü", min_size=1, max_size=150)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
members = st.lists(st.tuples(names, kinds, names, st.binary(max_size=600)), max_size=6)


@FUZZ
@given(members=members, tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_tars_are_read_like_tarfile_reads_them(members: list[tuple[str, bytes, str, bytes]], tar_format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, kind, link, content in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        theirs = [
            (tar_stream.normal(entry.name), entry.size, archive.extractfile(entry).read() if entry.isreg() else b"")  # type: ignore[union-attr]
            for entry in archive
        ]
    reader = PieceReader([buffer.getvalue()])
    ours = [(member.path, member.size, member.read(reader, 1 << 20)) for member in tar_stream.members(reader)]

    assert ours == theirs


@FUZZ
@given(layers=st.lists(members, max_size=3), path=names, folder=names)
def test_files_of_layers(layers: list[list[tuple[str, bytes, str, bytes]]], path: str, folder: str) -> None:
    files = []
    for layer in layers:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, kind, link, content in layer:
                entry = tarfile.TarInfo(name.replace("ü", ".wh."))
                entry.type, entry.linkname, entry.mode = kind, link, 0o755
                entry.size = len(content) if kind == tarfile.REGTYPE else 0
                archive.addfile(entry, io.BytesIO(b"#!" + content if entry.size > 2 else content))
        files.append(layer_files.read_files(PieceReader([buffer.getvalue()]), layer_files.Budget(MEMORY)))
    stacked = Filesystem(files)

    stacked.find(stacked.resolve(path, folder))
    stacked.in_folders([path, folder])


outputs = st.text(max_size=200) | st.lists(
    st.sampled_from(["Name: ", "Driver: ", "Status: ", "Error: ", "Platforms: "]).flatmap(
        lambda field: st.text(max_size=20).map(lambda value: field + value)
    ),
    max_size=8,
).map("\n".join)
outcome = outputs | st.builds(CommandError, st.sampled_from(["x", "", "\x1b[31m"]))
texts = {name: st.text(max_size=20) for name in ("ID", "Os", "Arch", "Name", "ServerVersion", "Driver")}
engine = st.fixed_dictionaries(texts, optional={"DriverStatus": anything, "Components": anything, "Version": anything})


@FUZZ
@given(
    answers=st.fixed_dictionaries(dict.fromkeys(["cli", "buildx", "cli_engine", "build_engine", "builder"], outcome)),
    engine=engine,
)
def test_outputs_of_docker(answers: dict[str, Any], engine: dict[str, Any]) -> None:
    facts: EngineFacts | Exception
    try:
        facts = EngineFacts.of_responses(engine, {})
    except InvalidResponseError as error:
        facts = error
    found = findings(engine=facts, **answers)

    assert len(found) == 13
    assert [finding for finding in found.values() if "could not be checked" in finding.found] == []
    console = Console(file=io.StringIO(), width=80)
    with Report(console) as shown:
        shown.show(found)
    shown.conclude(found)
    assert all(c == "\n" or c.isprintable() for c in console.file.getvalue())  # type: ignore[attr-defined]


toml = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab_", min_size=1, max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
settings_of = st.dictionaries(
    st.sampled_from(
        ["PREFECT_DOCKER_DISABLE_ATTESTATIONS", "PREFECT_API_URL", "PREFECT_HOME", "PREFECT_LOGGING_LEVEL"]
    ),
    toml,
    max_size=3,
)
profiles = st.fixed_dictionaries(
    {},
    optional={
        "active": toml,
        "profiles": toml | st.dictionaries(st.sampled_from(["a", "b"]), settings_of | toml, max_size=2),
    },
)


@pytest.mark.filterwarnings("ignore:Failed to load profiles")
@FUZZ
@given(
    content=profiles.map(lambda value: "\n".join(f"{key} = {_inline(entry)}" for key, entry in value.items()))
    | st.text(max_size=100)
)
def test_profiles(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    profiles_path = tmp_path_factory.getbasetemp() / "profiles.toml"
    profiles_path.write_text(content, encoding="utf-8", errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_PROFILES_PATH", str(profiles_path))
        patch.delenv("PREFECT_DOCKER_DISABLE_ATTESTATIONS", raising=False)
        found = findings(prefect=find_facts())

    assert [finding for finding in found.values() if "could not be checked" in finding.found] == []


def _inline(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)
