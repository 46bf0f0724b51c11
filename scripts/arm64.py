"""Deploys for amd64 on an emulated arm64 machine, and pulls and runs the images here: `scripts/tox -e arm64`.

This is the direction of issue 19337: an Arm laptop builds for an amd64 cloud. The first run makes the machine (two
minutes), later ones take it from the cache. The registry and Prefect's server are outside of the machine. At the end it
prints a table, and it fails if a row is not as expected. It needs Debian on amd64, and root.

    scripts/tox -e arm64
    scripts/tox -e arm64 -- doctor "flow.deploy"    # only rows with these words
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from rich.console import Console
from rich.table import Table

from engines import arm64_machine, private
from engines.base_images import base_image, programs_layer, push_image, push_index
from engines.machine import CommandFailed, EngineUnavailable, run
from engines.packages import unpacked
from engines.progress import step
from engines.published import Published
from support.prefect_server import PREFECT, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engines.private import Engine, PrivateDocker

HERE = Path(__file__).resolve().parent
POOL = "docker-pool"
QUIET_MINUTES = 40
"""Most minutes for all rows on a machine that does nothing else."""
PLATFORM = "aarch64-manylinux_2_39"
REQUIREMENTS = ("prefect", "docker", "prefect-docker", "python-on-whales", "pyyaml", "rich")
"""The packages in the machine, with the versions of this environment."""


@dataclass(frozen=True)
class Expected:
    """The image that a row must push."""

    platform: str = "linux/amd64"
    sound: bool = True
    attested: bool = False
    runs: bool = True


WRONG_BASE = "base image for arm64 only"
EXPECTED: Mapping[str, Expected | None] = {
    "import prefect": None,
    "setting off, flow.deploy": Expected(sound=False, runs=False),
    "flow.deploy": Expected(),
    "YAML steps": Expected(),
    'build_backend="buildx"': Expected(),
    "RUN step for amd64": Expected(),
    "native, attestations wanted": Expected(platform="linux/arm64", attested=True, runs=False),
    WRONG_BASE: Expected(runs=False),
    "base image for arm64 only, in an index": None,
    "start-up": None,
    "versions": None,
    "inspect": None,
    "doctor": None,
    "doctor, --timeout 900": None,
    "PREFECT_DOCKER_PLATFORM by profile": Expected(),
    "context desktop-linux": Expected(),
    "demo": None,
}
"""The rows, with the images that they must push."""
ON_BOTH_STORES = ("flow.deploy", "YAML steps", 'build_backend="buildx"')


class Mismatch(Exception):
    """Something is not as expected. The text says what was found."""


def main() -> int:
    """Run the command line, and return the exit code."""
    only = sys.argv[1:]
    began = time.monotonic()
    try:
        machine = arm64_machine.made()
        with private.start() as docker, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            seen = _seen(machine, docker, Path(folder), only)
            with step("Pulling and running the images here"):
                judged = [(row, *_judged(row, docker.engines["containerd"])) for row in seen]
    except (CommandFailed, EngineUnavailable, OSError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    minutes = (time.monotonic() - began) / 60
    _print_table(judged, f"{minutes:.0f} minutes, load {os.getloadavg()[1]:.1f}")
    missing = Counter((*EXPECTED, *ON_BOTH_STORES)) - Counter(row["name"] for row in seen)
    if only:
        missing.clear()
    if missing:
        print(f"missing: {', '.join(missing)}")
    return 1 if missing or not all(is_right for _, is_right, _ in judged) else 0


def _seen(
    machine: arm64_machine.Arm64Machine, docker: PrivateDocker, folder: Path, only: Sequence[str]
) -> list[dict[str, Any]]:
    """Run the rows in the machine, and return what they report."""
    _push_base_for_arm64(docker)
    home, files = folder / "prefect", folder / "files"
    home.mkdir()
    with serving(home, docker.engines) as prefect:
        subprocess.run(
            [PREFECT, "work-pool", "create", POOL, "--type=docker"],
            env=prefect.environment(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        given = {"registry": docker.registry.address, "api": prefect.url, "only": only}
        with step("Installing Prefect and the wheel into the machine"):
            _install(machine, files, given)
        ports = [int(address.rpartition(":")[2]) for address in (docker.registry.address, prefect.url[: -len("/api")])]
        # The other programs on this machine make it slower.
        limit = QUIET_MINUTES * 60 * max(1, os.getloadavg()[0])
        with (HERE.parent / ".tox/arm64.log").open("w") as log:
            return list(_rows(machine.run(files, ports, limit), log))


def _rows(lines: Iterator[str], log: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows in the output of the machine, and show that they have arrived."""
    print("Starting the machine. Its output is in .tox/arm64.log", flush=True)
    for line in lines:
        print(line, file=log, flush=True)
        if line.startswith("ROW "):
            row = {**json.loads(line.removeprefix("ROW ")), "load": f"{os.getloadavg()[0]:.1f}"}
            print(f"  {row['name']} {row['store']}: {row['seconds']} s (load {row['load']})", flush=True)
            yield row


def _push_base_for_arm64(docker: PrivateDocker) -> None:
    """Push a base image that exists for arm64 only, and the same in an index."""
    programs = unpacked(docker.suite)
    applets = run([str(programs / "amd64/usr/bin/busybox"), "--list"]).stdout.split()
    layer = programs_layer((programs / "arm64/usr/bin/busybox").read_bytes(), applets)
    image = base_image("arm64", layer)
    push_image(docker.registry.address, "library/only-arm64", "latest", image)
    push_index(docker.registry.address, "library/only-arm64", "index", [image])


def _install(machine: arm64_machine.Arm64Machine, files: Path, given: Mapping[str, Any]) -> None:
    """Write the content of /usr/local of the machine."""
    packages = files / arm64_machine.PACKAGES
    pins = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--target={packages}", "--no-config"),
            f"--python-version={arm64_machine.PYTHON.removeprefix('python')}",
            *(f"--python-platform={PLATFORM}", "--only-binary=:all:", *pins, os.environ["TOX_PACKAGE"]),
        ]
    )
    shutil.rmtree(packages / "bin")
    for name, module in (("prefect", "prefect.cli:app"), ("prefect-docker-attest", "prefect_docker_attest.cli:main")):
        source, _, function = module.partition(":")
        _write_program(files / "bin" / name, f"from {source} import {function}\n\n{function}()\n")
    shutil.copy(HERE / "arm64_rows.py", packages / "arm64_rows.py")
    (packages / "rows.json").write_text(json.dumps(given))
    _write_program(files / arm64_machine.PROGRAM, "from arm64_rows import main\n\nmain()\n")
    shutil.copytree(HERE / "engines/engines", packages / "engines")
    shutil.copytree(HERE.parent / "examples", files / "examples")
    machine.compile(files)


def _write_program(path: Path, code: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/python3\n{code}")
    path.chmod(0o755)


def _judged(row: Mapping[str, Any], engine: Engine) -> tuple[bool, str]:
    """Return whether a row is as expected, and what was found."""
    if "error" in row:
        return False, row["error"]
    try:
        return True, ", ".join(_findings(row, engine))
    except Mismatch as error:
        return False, str(error)
    except (HTTPError, CommandFailed) as error:
        return False, f"{row.get('image')}: {error}"


def _findings(row: Mapping[str, Any], engine: Engine) -> list[str]:
    expected = EXPECTED[row["name"]]
    if not expected:
        return [_JUDGES[row["name"]](row)]
    found = [*_published(row["image"], expected), *_pulled(row["image"], expected, engine)]
    if row["name"] == WRONG_BASE and not any("only-arm64" in warning for warning in row["warnings"]):
        raise Mismatch(f"{', '.join(found)}, no warning of the base image")
    return [*found, *row.get("warnings", ())]


def _published(image: str, expected: Expected) -> list[str]:
    """Compare the image in the registry with what is expected, and describe it."""
    published = Published(image)
    if published.is_one_manifest:
        matching, platform = published.layers_match(), "{os}/{architecture}".format(**published.config())
        found = ["one manifest", platform, f"{sum(matching)} of {len(matching)} layers sound"]
        is_right = not expected.attested and platform == expected.platform and all(matching) == expected.sound
    else:
        platforms = published.platforms()
        found = ["index", *platforms]
        is_right = expected.attested and platforms == [expected.platform, "unknown/unknown"]
    if not is_right:
        raise Mismatch(", ".join(found))
    return found


def _pulled(image: str, expected: Expected, engine: Engine) -> list[str]:
    """Pull the image, run it, and describe the result."""
    platform = f"--platform={expected.platform}"
    pulled = engine.run("docker", "pull", platform, image, check=False)
    if not expected.sound:
        if "wrong diff id" not in pulled.stderr:
            raise Mismatch(f"a corrupt image was pulled: {pulled.stdout}{pulled.stderr}")
        return ["not pulled (wrong diff id)"]
    if pulled.returncode:
        raise Mismatch(f"not pulled: {pulled.stderr.strip()}")
    if not expected.runs:
        return ["pulled"]
    ran = engine.output_of(platform, image, "sh", "-c", "cat /built-on 2>/dev/null || uname -m").strip()
    if ran != "x86_64":
        raise Mismatch(f"it runs on {ran}")
    return ["runs here"]


def _judge_start_up(row: Mapping[str, Any]) -> str:
    found = f"{row['added']} ms more CPU time than {row['bare']} ms"
    # Outside of the machine it is less than a twentieth.
    if row["added"] > row["bare"] / 5:
        raise Mismatch(found)
    return found


def _judge_doctor(row: Mapping[str, Any]) -> str:
    found = {
        status: [f"{check['name']}: {check['found']}" for check in row["checks"] if check["status"] == status]
        for status in ("problem", "warning", "unknown")
    }
    text = "; ".join(f"{status} {check}" for status, checks in found.items() for check in checks) or "no problems"
    waited = "--timeout" in row["name"]
    if found["problem"] or (waited and found["unknown"]) or row["code"] != (3 if found["unknown"] else 0):
        raise Mismatch(text)
    return text


def _judge_refused(row: Mapping[str, Any]) -> str:
    found = str(row["refused"])
    if "The base image has no variant for the platform." not in found:
        raise Mismatch(found)
    return found


def _judge_inspect(row: Mapping[str, Any]) -> str:
    found = f"exit codes of inspect --fail-on-corruption: {row['codes']}"
    if row["codes"] != {"off": 1, "deployed": 0}:
        raise Mismatch(found)
    return found


def _judge_demo(row: Mapping[str, Any]) -> str:
    printed = row["printed"]
    lines = [line for line in printed.splitlines() if "Platform" in line or "Layers" in line or "Media type" in line]
    if row["code"] or not any("linux/amd64" in line for line in lines):
        raise Mismatch(printed[-1500:])
    return "; ".join(" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in lines)


_JUDGES = {
    "import prefect": lambda row: f"Prefect {row['versions']}",
    "start-up": _judge_start_up,
    "versions": lambda row: str(row["versions"]),
    "inspect": _judge_inspect,
    "base image for arm64 only, in an index": _judge_refused,
    "doctor": _judge_doctor,
    "doctor, --timeout 900": _judge_doctor,
    "demo": _judge_demo,
}


def _print_table(judged: Sequence[tuple[Mapping[str, Any], bool, str]], title: str) -> None:
    table = Table("", "store", "s", "load", "seen", "", title=f"An emulated arm64 machine builds for amd64 ({title})")
    for row, is_right, text in judged:
        right = "as expected" if is_right else "NOT AS EXPECTED"
        table.add_row(row["name"], row["store"], str(row["seconds"]), row["load"], text.strip(), right)
    Console(width=160, markup=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
