"""`inspect --fail-on-platform` with images that are made from Debian's packages."""

from __future__ import annotations

import gzip
import json
import re
import struct
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from prefect_docker_attest.images import programs
from prefect_docker_attest.images.checks import Checks, expected_platform
from prefect_docker_attest.images.result import Image, Inspection
from prefect_docker_attest.platforms import Platform
from support import image_shapes, raw_tar
from support.hostile import HostileServer, hostile_server
from support.image_shapes import DEBIAN, File, layer, tree, whiteout
from support.pushing import CONFIG, push_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from engines.private import Engine, Registry
    from support.shipped import Run

INDEX = "application/vnd.oci.image.index.v1+json"
SHELL = {"Cmd": ["/bin/sh"]}
OTHER = {"amd64": "arm64", "arm64": "amd64"}


@dataclass
class Shape:
    """An image to inspect: the files of its layers, and its config."""

    layers: Sequence[Sequence[File]]
    config: dict[str, Any] = field(default_factory=lambda: dict(SHELL))
    platform: str = "amd64"
    tar_format: int = tarfile.GNU_FORMAT
    system: str = "linux"


class Debian:
    """Files of Debian's packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unpacked: dict[tuple[str, ...], list[File]] = {}

    def files(self, architecture: str, *packages: str) -> list[File]:
        """Return the files of these packages in one tree."""
        key = architecture, *packages
        if key not in self._unpacked:
            found: dict[str, File] = {}
            for package in packages:
                found |= {file.path: file for file in tree(self.folder / architecture / package)}
            self._unpacked[key] = list(found.values())
        return self._unpacked[key]

    def program(self, architecture: str, path: str) -> bytes:
        """Return the content of `package/path`. Newer suites of Debian have the file below `usr`."""
        package, _, name = path.partition("/")
        folder = self.folder / architecture / package
        return next(file for file in (folder / name, folder / "usr" / name) if file.is_file()).read_bytes()

    def busybox(self, architecture: str, kind: bytes = tarfile.SYMTYPE) -> list[File]:
        """Files like in the image `busybox`: one program, and a link to it for each command."""
        program = File("bin/busybox", self.program(architecture, "busybox-static/bin/busybox"))
        target = "busybox" if kind == tarfile.SYMTYPE else "bin/busybox"
        return [program, *[File(f"bin/{name}", link=target, kind=kind) for name in ("sh", "ls", "cat")]]

    def system(self, architecture: str, *more: str) -> list[File]:
        """Files like in the image `debian`, where /bin/sh is a link."""
        return [*self.files(architecture, *DEBIAN, *more), File("bin/sh", link="dash", kind=tarfile.SYMTYPE)]

    def python(self, architecture: str) -> list[File]:
        """Files like in the image `python`, where commands are links to links."""
        real = "libpython3.11-minimal", "python3.11-minimal", "python3-minimal"
        name = next(iter((self.folder / architecture).glob("python3.*-minimal"))).name
        packages = [package.replace("3.11", name.removeprefix("python").removesuffix("-minimal")) for package in real]
        links = [("usr/local/bin/python", "python3"), ("usr/local/bin/python3", "/usr/bin/python3")]
        files = self.system(architecture, *packages, "zlib1g", "libexpat1")
        return [*files, *[File(path, link=target, kind=tarfile.SYMTYPE) for path, target in links]]

    def distroless(self, architecture: str) -> list[File]:
        """Files like in the image `gcr.io/distroless/base` with a program, but without a shell and other commands."""
        return [*self.files(architecture, "base-files", "libc6"), self.hello(architecture)]

    def hello(self, architecture: str, path: str = "app") -> File:
        """A program that needs the dynamic loader."""
        return File(path, self.program(architecture, "hello/usr/bin/hello"))

    def go(self, architecture: str, path: str = "gosu") -> File:
        """A static program, compiled by Go."""
        return File(path, self.program(architecture, "gosu/usr/sbin/gosu"))


@pytest.fixture(scope="session")
def debian() -> Debian:
    return Debian(image_shapes.packages())


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        yield server


def serve(server: HostileServer, name: str, shape: Shape) -> dict[str, Any]:
    layers = [layer(files, shape.tar_format) for files in shape.layers]
    # Images with the same files differ in their config, so the digests of the layers do not matter.
    descriptor = server.image(name, *layers)
    manifest = server.document(f"manifests/{descriptor['digest']}")
    config = server.document(f"blobs/{manifest['config']['digest']}")
    content = json.dumps(
        {**config, "os": shape.system, "architecture": shape.platform, "config": shape.config}
    ).encode()
    return server.serve(name, {**manifest, "config": server.blob(content, CONFIG)})


def states(run: Run, server: HostileServer, shapes: dict[str, Shape]) -> dict[str, Any]:
    """Inspect the images, and return the result for the programs of each. All layers are sound."""
    for name, shape in shapes.items():
        serve(server, name, shape)
    result = run("inspect", "--verify-layers", "--json", *[f"{server.address}/x:{name}" for name in shapes])

    assert (result.code, result.json["errors"]) == (0, [])
    assert {image["state"] for image in result.json["images"]} == {"sound"}
    return {name: image["images"][0]["programs"] for name, image in zip(shapes, result.json["images"], strict=True)}


def test_images_with_right_and_wrong_programs(run: Run, server: HostileServer, debian: Debian) -> None:
    shapes = {}
    for architecture in ("amd64", "arm64"):
        for platform in ("amd64", "arm64"):
            files = {
                "busybox": Shape([debian.busybox(architecture)]),
                "busybox-hard": Shape([debian.busybox(architecture, tarfile.LNKTYPE)]),
                "debian": Shape([debian.system(architecture)]),
                "python": Shape([debian.python(architecture)], {"Cmd": ["python3"]}),
                "distroless": Shape([debian.distroless(architecture)], {"Entrypoint": ["/app"]}),
                "go": Shape([[debian.go(architecture)]], {"Entrypoint": ["/gosu"]}),
            }
            for name, shape in files.items():
                shape.platform = platform
                shapes[f"{name}-{architecture}-in-{platform}"] = shape
    found = states(run, server, shapes)

    right = {name for name in shapes if name.split("-")[-1] == name.split("-")[-3]}
    assert {name for name, programs in found.items() if programs["state"] == "right"} == right
    assert {name for name, programs in found.items() if programs["state"] == "wrong"} == set(shapes) - right
    wrong = found["busybox-hard-arm64-in-amd64"]
    assert wrong["counts"] == {"linux/arm64": 4}
    assert wrong["detail"].startswith("4 of 4 programs are for linux/arm64, not for linux/amd64, e.g. /bin/")
    assert found["busybox-arm64-in-amd64"]["examples"] == ["/bin/busybox"]
    assert found["go-amd64-in-arm64"]["detail"].endswith("; the image starts /gosu, which is for linux/amd64")
    assert found["python-amd64-in-amd64"]["counts"]["linux/amd64"] > 100


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_programs_that_an_image_starts_decide(
    run: Run, server: HostileServer, debian: Debian, architecture: str
) -> None:
    other, base = OTHER[architecture], debian.system(architecture)
    foreign, native = debian.hello(other, "usr/local/bin/app"), debian.hello(architecture, "usr/local/bin/app")
    script = File("entrypoint.sh", b"#!/usr/bin/env -S app --flag\n")
    opt = debian.hello(other, "opt/app")
    configs: dict[str, tuple[File, dict[str, Any], str]] = {
        "entry point": (foreign, {"Entrypoint": ["/usr/local/bin/app"]}, "wrong"),
        "by PATH": (foreign, {"Cmd": ["app", "serve"]}, "wrong"),
        "in a shell": (foreign, {"Cmd": ["/bin/sh", "-c", "exec app --x"]}, "wrong"),
        "in a shell with a variable": (foreign, {"Cmd": ["/bin/sh", "-c", "A=1 app --x # y"]}, "wrong"),
        "by a launcher": (foreign, {"Entrypoint": ["env", "-i", "A=1", "app"]}, "wrong"),
        "in a folder": (opt, {"Cmd": ["./app"], "WorkingDir": "/opt"}, "wrong"),
        "on another PATH": (opt, {"Cmd": ["app"], "Env": ["PATH=/bin:/opt"]}, "wrong"),
        "not started": (foreign, SHELL, "mixed"),
        "aside": (opt, SHELL, "mixed"),
        "own": (native, {"Cmd": ["app"]}, "right"),
        "a bad shell line": (native, {"Cmd": ["/bin/sh", "-c", "'"]}, "right"),
        "nothing": (native, {}, "right"),
        "not there": (native, {"Cmd": ["/nosuch"]}, "right"),
    }
    shapes = {
        str(number): Shape([base, [file]], config, architecture)
        for number, (file, config, _) in enumerate(configs.values())
    }
    by_script = [
        debian.files(architecture, *DEBIAN),
        [script, foreign, File("usr/bin/env", debian.program(architecture, "coreutils/usr/bin/env"))],
    ]
    shapes["script"] = Shape(by_script, {"Cmd": ["/entrypoint.sh"]}, architecture)
    found = states(run, server, shapes)

    assert {name: found[str(number)]["state"] for number, name in enumerate(configs)} == {
        name: state for name, (_, _, state) in configs.items()
    }
    assert found["script"]["detail"].endswith(f"; the image starts /usr/local/bin/app, which is for linux/{other}")
    assert found["8"]["detail"].startswith("1 of ")


def test_a_base_image_for_another_platform_is_wrong_even_with_right_copied_programs(
    run: Run, server: HostileServer, debian: Debian
) -> None:
    static = [debian.go("amd64", "usr/local/bin/gosu")]
    dynamic = [debian.hello("amd64", "usr/local/bin/app")]
    cross = [File("lib64/ld-linux-x86-64.so.2", debian.program("arm64", "libc6/lib/ld-linux-aarch64.so.1"))]
    base = debian.system("arm64")
    found = states(
        run,
        server,
        {
            "static": Shape([base, static], {"Cmd": ["gosu"]}),
            "loader": Shape([cross, dynamic], {"Cmd": ["app"]}),
        },
    )

    assert [found[name]["state"] for name in ("static", "loader")] == ["wrong", "wrong"]
    assert re.search("programs are for linux/arm64, not for linux/amd64, e.g. (/usr)?/bin/", found["static"]["detail"])
    assert found["loader"]["detail"].endswith("the image starts /lib64/ld-linux-x86-64.so.2, which is for linux/arm64")


def test_layers_hide_files_of_lower_ones(run: Run, server: HostileServer, debian: Debian) -> None:
    base, foreign = debian.system("amd64"), debian.hello("arm64", "opt/tool/app")
    folder = File("opt/tool", kind=tarfile.DIRTYPE)
    merged = [File("bin", link="usr/bin", kind=tarfile.SYMTYPE), File("usr/bin/sh", debian.go("amd64").content)]
    shapes = {
        "whiteout": Shape([base, [foreign], [whiteout("opt/tool/app")]]),
        "whiteout of a folder": Shape([base, [foreign], [whiteout("opt")]]),
        "emptied folder": Shape([base, [foreign], [folder, File("opt/tool/.wh..wh..opq")]]),
        "replaced by a program": Shape([base, [foreign], [debian.hello("amd64", "opt/tool/app")]]),
        "replaced by a text": Shape([base, [foreign], [File("opt/tool/app", b"text")]]),
        "replaced by a link": Shape([base, [foreign], [File("opt/tool/app", link="/bin/ls", kind=tarfile.SYMTYPE)]]),
        "replaced by a folder": Shape([base, [foreign], [File("opt/tool/app", kind=tarfile.DIRTYPE)]]),
        "folder replaced by a text": Shape([base, [foreign], [File("opt", b"text")]]),
        "folder replaced by a link": Shape([base, [foreign], [File("opt", link="tmp", kind=tarfile.SYMTYPE)]]),
        "twice in a layer": Shape([base, [foreign, File("opt/tool/app", b"text")]]),
        "whiteout, then again": Shape([base, [foreign], [whiteout("opt")], [foreign]]),
        "whiteout of another": Shape([base, [foreign], [whiteout("opt/tool/ap"), whiteout("opt/too")]]),
        "hard link to a removed file": Shape(
            [base, [foreign, File("srv", link="opt/tool/app", kind=tarfile.LNKTYPE)], [whiteout("opt")]],
        ),
        "merged /usr": Shape([merged, [debian.go("arm64", "bin/sh")]]),
        "merged /usr, whiteout": Shape([merged, [debian.go("arm64", "bin/sh")], [whiteout("usr/bin/sh")]]),
        "links in a circle": Shape(
            [base, [File("a", link="b", kind=tarfile.SYMTYPE), File("b", link="a", kind=tarfile.SYMTYPE)]],
            {"Cmd": ["/a/x"]},
        ),
    }
    found = {
        name: programs["state"]
        for name, programs in states(
            run, server, {str(number): shape for number, shape in enumerate(shapes.values())}
        ).items()
    }

    expected = dict.fromkeys(shapes, "right") | {
        "whiteout, then again": "mixed",
        "whiteout of another": "mixed",
        "hard link to a removed file": "mixed",
        "merged /usr": "wrong",
        "merged /usr, whiteout": "none",
    }
    assert dict(zip(shapes, found.values(), strict=True)) == expected


def test_programs_for_other_systems_and_similar_files_count_as_data(
    run: Run, server: HostileServer, debian: Debian
) -> None:
    pe = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0xAA64) + bytes(40)
    mach_o = struct.pack("<IIII", 0xFEEDFACF, 0x100000C, 0, 2) + bytes(40)
    elf = debian.hello("arm64").content
    files = [
        File("usr/lib/python3/dist-packages/pip/t64-arm.exe", pe),
        File("opt/tool.dylib", mach_o),
        File("opt/universal", struct.pack(">II", 0xCAFEBABE, 1) + struct.pack(">IIIII", 7, 0, 0, 0, 0)),
        File("opt/A.class", b"\xca\xfe\xba\xbe\x00\x00\x00\x34" + bytes(40)),
        File("opt/object.o", elf[:16] + b"\x01\x00" + elf[18:]),
        File("opt/gpu.so", elf[:18] + struct.pack("<H", 224) + elf[20:]),
        File("opt/short", elf[:17]),
        File("opt/header", elf[:4]),
    ]
    base = debian.system("amd64")
    found = states(
        run,
        server,
        {
            "beside": Shape([base, files]),
            "started": Shape([base, files], {"Cmd": ["/opt/tool.dylib"]}),
            "alone": Shape([[File("etc/x", b"x")]]),
            "386": Shape([base, [File("opt/386", elf[:4] + b"\x01" + elf[5:18] + b"\x03\x00" + elf[20:])]]),
        },
    )

    assert {name: programs["state"] for name, programs in found.items()} == {
        "beside": "right",
        "started": "wrong",
        "alone": "none",
        "386": "right",
    }
    assert {"windows/arm64": 1, "darwin/arm64": 1, "darwin/386": 1}.items() <= found["beside"]["counts"].items()
    assert "darwin" in found["started"]["detail"]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_format_of_tars(run: Run, server: HostileServer, debian: Debian, tar_format: int) -> None:
    long = "/".join(["folder" * 10] * 3) + "/app"
    names = [long] if tar_format == tarfile.USTAR_FORMAT else [long, f"{'name' * 60}/app", "ü" * 60 + "/app"]
    link = File("bin/sh", link=f"/{names[-1]}", kind=tarfile.SYMTYPE)
    links = [] if tar_format == tarfile.USTAR_FORMAT else [link]
    shape = Shape([[*[debian.go("arm64", name) for name in names], *links]], tar_format=tar_format)
    found = states(run, server, {"long": shape})["long"]

    assert (found["state"], found["counts"]) == ("wrong", {"linux/arm64": len(names)})
    assert set(found["examples"]) == {f"/{name}" for name in names}


def test_programs_of_other_systems_processors_and_tars(run: Run, server: HostileServer, debian: Debian) -> None:
    elf, base = debian.hello("amd64").content, debian.system("amd64")
    freebsd = File("bin/app", elf[:7] + b"\x09" + elf[8:])
    sparc = File("bin/sh", elf[:4] + b"\x02\x02" + elf[6:16] + b"\x00\x02\x00\x2b" + elf[20:])
    tini, firmware = debian.go("amd64", "bin/tini"), debian.hello("arm64", "fw.bin")
    old_folder = File("opt/", kind=b"\0")
    shapes = {
        "freebsd": Shape([[freebsd]], {"Cmd": ["/bin/app"]}, "amd64", system="freebsd"),
        "linux-in-freebsd": Shape([[File("bin/app", elf)]], {"Cmd": ["/bin/app"]}, "amd64", system="freebsd"),
        "freebsd-in-linux": Shape([[freebsd]], {"Cmd": ["/bin/app"]}),
        "sparc": Shape([[sparc]]),
        "data": Shape([[*base, tini, firmware]], {"Entrypoint": ["tini", "--", "python", "/fw.bin"]}),
        "no-data": Shape([[*base, tini, firmware]], {"Entrypoint": ["tini", "--", "/fw.bin"]}),
        "old-folder": Shape([base, [debian.hello("arm64", "opt/app")], [File("opt", b"x")], [old_folder]]),
    }
    found = states(run, server, shapes)

    assert {name: programs["state"] for name, programs in found.items()} == {
        "freebsd": "right",
        "linux-in-freebsd": "right",
        "freebsd-in-linux": "wrong",
        "sparc": "wrong",
        "data": "mixed",
        "no-data": "wrong",
        "old-folder": "right",
    }
    assert found["sparc"]["counts"] == {"linux/machine-43": 1}


@pytest.mark.parametrize("tar", [b"", raw_tar.entry("a", b"x"), raw_tar.entry("a", b"x") + bytes(512)])
def test_a_layer_without_an_end_has_no_programs(run: Run, server: HostileServer, tar: bytes) -> None:
    server.image("short", gzip.compress(tar))
    (image,) = run("inspect", f"{server.address}/x:short", "--json", "--verify-layers").json["images"][0]["images"]

    assert (image["state"], image["programs"]["state"]) == ("sound", "none")


def test_an_invalid_tar_has_unknown_programs(run: Run, server: HostileServer) -> None:
    server.image("bad", gzip.compress(b"x" * 5000))
    result = run("inspect", f"{server.address}/x:bad", "--json", "--fail-on-platform")

    programs = result.json["images"][0]["images"][0]["programs"]
    assert (result.code, result.json["images"][0]["state"], programs["state"]) == (1, "corrupt", "unknown")
    assert "could be read as a tar" in programs["detail"]


def test_an_index_and_a_config_that_name_two_platforms(run: Run, server: HostileServer) -> None:
    entry = {**serve(server, "one", Shape([[File("x")]])), "platform": {"os": "linux", "architecture": "arm64"}}
    server.serve("bad", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)
    result = run("inspect", f"{server.address}/x:bad", "--json", "--fail-on-platform")

    programs = result.json["images"][0]["images"][0]["programs"]
    assert (result.code, programs["state"]) == (1, "wrong")
    assert programs["detail"] == "the index names the platform linux/arm64, but the config names linux/amd64"


def test_fail_options_exit_with_1_and_show_the_reason(run: Run, server: HostileServer, debian: Debian) -> None:
    serve(server, "wrong", Shape([debian.busybox("arm64")]))
    serve(server, "right", Shape([debian.busybox("amd64")]))
    serve(server, "mixed", Shape([[*debian.busybox("amd64"), debian.go("arm64", "opt/gosu")]]))
    name = f"{server.address}/x"
    wrong = run("inspect", "--fail-on-platform", f"{name}:wrong")

    assert wrong.code == 1
    assert "1 of 1 programs are for linux/arm64, not for linux/amd64, e.g. /bin/busybox" in wrong.text
    assert "Wrong programs: clusters cannot start this image (`exec format error`)." in wrong.text
    assert run("inspect", "--verify-layers", f"{name}:wrong").code == 0
    assert run("inspect", "--fail-on-platform", f"{name}:right", f"{name}:mixed").code == 0
    assert run("inspect", "--expect-platform", "linux/amd64", f"{name}:right").code == 0
    lacking = run(
        "inspect", "--expect-platform=linux/amd64", "--expect-platform=linux/arm64", f"{name}:right", "--json"
    )
    assert (lacking.code, lacking.json["images"][0]["missing_platforms"]) == (1, ["linux/arm64"])
    lacking = run("inspect", "--expect-platform=linux/aarch64", f"{name}:right")
    assert "There is no image for linux/aarch64." in lacking.text
    assert run("inspect", "--expect-platform=amd64", f"{name}:right").code == 2


@pytest.mark.parametrize(
    ("wanted", "present", "missing"),
    [
        ("linux/amd64", ["linux/amd64"], False),
        ("linux/amd64", ["linux/amd64/v2"], True),
        ("linux/x86_64", ["linux/amd64/v1"], False),
        ("linux/arm64", ["linux/arm64/v8"], False),
        ("linux/arm64/v8", ["linux/arm64"], False),
        ("linux/arm/v7", ["linux/arm"], False),
        ("linux/arm/v6", ["linux/arm/v7"], True),
        ("windows/amd64", ["linux/amd64", None, "x", "a/b/c/d"], True),
    ],
)
def test_names_of_platforms(wanted: str, present: list[str | None], missing: bool) -> None:
    images = [
        Image("", "", Platform.of_text(name or ""), 0, (), "unchecked", "", programs.UNCHECKED) for name in present
    ]
    inspection = Inspection("", "", "", "", tuple(images), (), (), "unchecked")
    platforms = [expected_platform(wanted)]
    checks = Checks(attestations=False, corruption=False, programs=False, platforms=platforms)

    assert checks.missing(inspection) == (platforms if missing else [])
    assert bool(list(checks.failures(inspection))) is missing


@pytest.mark.parametrize(
    ("wanted", "example"),
    [
        ("amd64", "linux/amd64"),
        ("linux", "linux/amd64"),
        ("local", "linux/amd64"),
        ("", "linux/amd64"),
        ("linux/amd46", "linux/amd64"),
        ("linux-arm64", "linux/arm64"),
        ("arm64v8", "linux/arm64/v8"),
    ],
)
def test_a_word_that_is_no_platform_is_refused_with_the_nearest_one(wanted: str, example: str) -> None:
    with pytest.raises(ValueError, match=rf"{wanted!r} is not a platform\. Write OS/ARCHITECTURE, such as {example}\."):
        expected_platform(wanted)


def test_a_build_for_a_platform_that_its_base_image_lacks(
    run: Run, registry: Registry, engine: Engine, debian: Debian, tmp_path: Path
) -> None:
    """Docker's builders build such images without a warning."""
    repository = f"http://{registry.address}/v2/cli/arm-only"
    blob = layer(debian.busybox("arm64"))
    push_image(repository, blob, tag="v1", config={"os": "linux", "architecture": "arm64", "config": SHELL})
    (tmp_path / "Dockerfile").write_text(f"FROM {registry.address}/cli/arm-only:v1\nCOPY Dockerfile /\n")
    name = f"{registry.address}/cli/mistaken-{engine.store}:v1"
    engine.run(
        "docker",
        "buildx",
        "build",
        "--platform=linux/amd64",
        "--provenance=false",
        f"--tag={name}",
        "--load",
        str(tmp_path),
    )
    engine.run("docker", "push", name)

    for flags in ([], ["--engine"]):
        result = run("inspect", name, "--json", "--fail-on-platform", *flags)
        (image,) = result.json["images"][0]["images"]
        assert (result.code, image["platform"], image["state"]) == (1, "linux/amd64", "sound")
        assert (image["programs"]["state"], image["programs"]["counts"]) == ("wrong", {"linux/arm64": 1})
