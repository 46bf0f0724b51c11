"""The private engines of the tests: their stores, arm64 emulation, and complete removal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from engines import machine, packages
from engines import private as module
from engines.private import Engine, EngineUnavailable, PrivateDocker
from support.processes import wait_until

_LINKS = Path("/sys/class/net")


def test_each_engine_has_the_store_it_is_named_after(private_docker: PrivateDocker) -> None:
    status = {
        store: json.loads(engine.run("docker", "info", "--format={{json .DriverStatus}}").stdout)
        for store, engine in private_docker.engines.items()
    }
    assert ["driver-type", "io.containerd.snapshotter.v1"] in status["containerd"]
    assert "driver-type" not in dict(status["graphdriver"])
    assert dict(status["graphdriver"])["Backing Filesystem"]


def test_versions_are_those_of_the_programs(private_docker: PrivateDocker) -> None:
    for engine in private_docker.engines.values():
        version = json.loads(engine.run("docker", "version", "--format={{json .}}").stdout)
        assert version["Client"]["Version"] == version["Server"]["Version"] == private_docker.docker_version
        assert private_docker.buildx_version in engine.run("docker", "buildx", "version").stdout


@pytest.mark.parametrize(("platform", "machine"), [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")])
def test_containers_run_on_both_platforms(engine: Engine, platform: str, machine: str) -> None:
    assert engine.output_of(f"--platform={platform}", "busybox", "uname", "-m") == f"{machine}\n"


@pytest.mark.parametrize(("platform", "machine"), [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")])
def test_buildx_builds(engine: Engine, tmp_path: Path, platform: str, machine: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /context/\nRUN uname -m > /machine\n")
    image = f"test-private-docker-{machine}"
    try:
        engine.run("docker", "buildx", "build", f"--platform={platform}", f"--tag={image}", "--load", str(tmp_path))
        output = engine.output_of(f"--platform={platform}", image, "cat", "/machine", "/context/Dockerfile")
        assert output.startswith(f"{machine}\nFROM busybox")
    finally:
        engine.run("docker", "image", "rm", "--force", image)


def test_containers_of_one_network_reach_each_other(engine: Engine) -> None:
    network = engine.run("docker", "network", "create", "test-private-docker").stdout.strip()
    try:
        serve = ["docker", "run", "--rm", "--detach", f"--network={network}", "busybox"]
        server = engine.run(*serve, "httpd", "-f", "-p", "8000", "-h", "/etc").stdout.strip()
        address = "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        url = f"http://{engine.run('docker', 'inspect', address, server).stdout.strip()}:8000/os-release"
        get = f"for _ in $(seq 60); do wget -q -O - {url} && exit; sleep 1; done; exit 1"
        assert "busybox" in engine.output_of(f"--network={network}", "busybox", "sh", "-c", get)
        engine.run("docker", "kill", server)
    finally:
        engine.run("docker", "network", "rm", "--force", network)


def test_base_image_is_what_shows_the_corruption(private_docker: PrivateDocker) -> None:
    """An index for two platforms. Both images have the same number of layers, and no layer in common."""
    url = f"http://{private_docker.registry.address}/v2/library/busybox"
    index = _get(f"{url}/manifests/latest")
    manifests = {
        entry["platform"]["architecture"]: _get(f"{url}/manifests/{entry['digest']}") for entry in index["manifests"]
    }
    layers = {name: {layer["digest"] for layer in each["layers"]} for name, each in manifests.items()}
    assert {name: len(digests) for name, digests in layers.items()} == {"amd64": 2, "arm64": 2}
    assert not layers["amd64"] & layers["arm64"]


def test_containerd_pulls_from_the_registry(engine: Engine, private_docker: PrivateDocker) -> None:
    """containerd, the strictest puller here, accepts the base image."""
    image = f"{private_docker.registry.address}/library/busybox:latest"
    namespace = "--namespace=test-private-docker"
    engine.ctr(namespace, "images", "pull", "--plain-http", "--platform=linux/arm64", image)
    assert image in engine.ctr(namespace, "images", "ls", "--quiet").stdout
    engine.ctr(namespace, "images", "rm", image)
    refused = engine.ctr(namespace, "images", "pull", "--plain-http", f"{image}-not-there", check=False)
    assert refused.returncode
    assert "not found" in refused.stderr


def test_nothing_is_left_of_a_second_instance(private_docker: PrivateDocker) -> None:
    before = _traces()
    with module.start() as second:
        assert not {second.registry.address} & {private_docker.registry.address}
        for engine in second.engines.values():
            engine.run("docker", "network", "create", "left")
            engine.run("docker", "volume", "create", "left")
            engine.run("docker", "run", "--detach", "--network=left", "--publish=80", "busybox", "sleep", "1000")
            engine.run(
                "docker", "run", "--detach", "--platform=linux/arm64", "--restart=always", "busybox", "sleep", "9"
            )
        assert len(_traces()) > len(before)
    assert not second.folder.exists()
    assert _new_since(before) == set()
    second.stop()
    for engine in private_docker.engines.values():
        output = engine.output_of("--platform=linux/arm64", "busybox", "uname", "-m")
        assert output == "aarch64\n", "the first instance is not what it was"


def test_start_that_fails_leaves_nothing(private_docker: PrivateDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    del private_docker
    before = _traces()
    command = module._dockerd_command
    monkeypatch.setattr(module, "_dockerd_command", lambda *arguments: [*command(*arguments), "--no-such-option"])
    with pytest.raises(
        EngineUnavailable, match=r"(?s)dockerd \(graphdriver\) ended with exit code .*unknown flag: --no-such-opt"
    ):
        module.start()
    assert _new_since(before) == set()


def test_daemons_end_with_their_killed_owner(private_docker: PrivateDocker) -> None:
    """The next start removes the rest."""
    del private_docker
    before = _traces()
    script = "from engines import private; private.start(stores=['graphdriver']); print(flush=True); input()"
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout
    assert owner.stdout.readline()
    with machine.lock():  # another start on this machine would remove the rest, too
        owner.kill()
        owner.communicate()
        # Bridge, emulation and folder do not end with the process.
        left = {kind for kind in ("link", "emulation", "folder") if _of_kind(kind, _traces() - before)}
        assert left == {"link", "emulation", "folder"}
        wait_until(lambda: not _of_kind("process", _traces() - before))
    module.start(stores=["containerd"]).stop()
    assert _new_since(before) == set()


def test_command_line(private_docker: PrivateDocker) -> None:
    del private_docker
    before = _traces()
    command = [sys.executable, "-m", "engines"]
    if "detached" in machine.run([*command, "status"]).stdout:
        pytest.skip("somebody has engines up that `stop` would stop")
    shell = 'eval "$("$@" start --store graphdriver)" && docker info --format={{.Driver}} && echo $REGISTRY'
    try:
        first = machine.run(["sh", "-c", shell, "sh", *command]).stdout.split()
        assert first[0] == "overlay2"
        assert first[1].startswith("127.0.0.1:")
        again = machine.run(["sh", "-c", shell, "sh", *command]).stdout.split()
        assert again == first, "started twice"
    finally:
        machine.run([*command, "stop"])
    assert _new_since(before) == set()


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineUnavailable, match="private engines need root"):
        module.start()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources.list", "# deb http://no/debian bookworm main\ndeb http://yes/debian bookworm main contrib\n"),
        (
            "sources.list",
            "deb http://no/x bookworm-security main\ndeb [arch=amd64 trusted=yes] http://yes/debian bookworm main",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb\n# a comment\nURIs: http://yes/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
            "Types: deb\nURIs: http://no/debian-security\nSuites: bookworm-security\nComponents: main\n",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb deb-src\nURIs: http://yes/debian\nSuites: stable\nComponents: main\n",
        ),
    ],
)
def test_the_mirror_is_that_of_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    # Other vendors use the names of Debian's suites.
    (tmp_path / "sources.list.d" / "a-vendor.list").write_text("deb http://no/vendor bookworm main\n")
    (tmp_path / file).write_text(text)
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    monkeypatch.setattr(packages, "_APT", tmp_path)
    monkeypatch.setattr(packages, "_RELEASE", release)
    assert packages.mirror_of_the_machine().uri == "http://yes/debian"


def _get(url: str) -> Any:
    types = ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"]
    request = urllib.request.Request(url, headers={"Accept": ", ".join(types)})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


# Daemons that were killed leave their temporary folders, and those of other tests run builds at the same time.
_PASSING = re.compile("containerd-mount|dockerfile|runc-process|prefect-docker-attest-build-")


def _traces() -> set[str]:
    """Return the traces of engines on this machine that other tests and other processes do not create."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            commands.append(path.read_bytes())
    groups = [group for group, *_ in os.walk("/sys/fs/cgroup")]
    links = [(link.name, os.path.basename(os.path.realpath(link / "master"))) for link in _LINKS.iterdir()]
    # Command lines of an engine's processes contain its folder. Those of clients do not.
    ours = [os.fsdecode(command) for command in commands if re.search(rb"/prefect-docker-attest-\w{8}/", command)]
    traces = {
        *(f"process {command}" for command in ours),
        *(f"link {name} of {bridge}" for name, bridge in links),
        *(f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        *(f"emulation {entry}" for entry in Path("/proc/sys/fs/binfmt_misc").iterdir()),
        *(f"group {group}" for group in groups if re.search("/prefect-docker-attest-[^/]*$", group)),
        *(f"folder {folder}" for base in ("/var/lib", "/tmp", "/run", "/opt") for folder in _listing(base)),
        f"forwarding {Path('/proc/sys/net/ipv4/ip_forward').read_text()}",
    }
    others = [folder.name.rpartition("-")[2] for folder in machine.folders(module._NAME) if _is_of_others(folder)]
    return {trace for trace in traces if not any(name in trace for name in others)}


def _is_of_others(folder: Path) -> bool:
    """Return whether a start belongs to another process that runs tests on this machine."""
    state = module._State.read(folder)
    return bool(state and state.owner and state.owner[0] != os.getpid() and module._is_up(folder, state))


def _listing(base: str) -> list[Path]:
    names = re.compile("docker|containerd|runc")
    return [path for path in Path(base).iterdir() if names.search(path.name) and not _PASSING.match(path.name)]


def _of_kind(kind: str, traces: set[str]) -> list[str]:
    return [trace for trace in traces if trace.startswith(f"{kind} ")]


def _new_since(before: set[str]) -> set[str]:
    """Return new traces, after the time that the kernel needs to remove a link on a busy machine."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not _traces() - before, 30)
    return _traces() - before
