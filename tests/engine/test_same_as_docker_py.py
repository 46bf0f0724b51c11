"""A call makes the same image as with docker-py's classic builder, on both image stores."""

from __future__ import annotations

import copy
import functools
import http.server
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from docker.errors import DockerException
from docker.models.images import Image
from prefect.utilities.dockerutils import docker_client

from prefect_docker_attest.errors import OptionError
from support.both_builders import Built, Failed, build, differences
from support.names import BUSYBOX, CONTEXTS, PREFIX

if TYPE_CHECKING:
    from conftest import Setting
    from engines.private import Engine, Registry

Options = Mapping[str, Any]
MakeOptions = Callable[[Path], Options]

COPY_ALL = "FROM scratch\nCOPY . /context/\n"


def folder(name: str, **options: Any) -> MakeOptions:
    """Return a build of one of the contexts in this repository."""
    # docker-py adds the configured proxies to the caller's `buildargs`.
    return lambda _: {"path": str(CONTEXTS / name), **copy.deepcopy(options)}


def written(files: Mapping[str, str], **options: Any) -> MakeOptions:
    """Return a build of a context with these files, and with a Dockerfile that copies them."""

    def make(empty: Path) -> Options:
        for name, text in {"Dockerfile": COPY_ALL, **files}.items():
            (empty / name).parent.mkdir(parents=True, exist_ok=True)
            (empty / name).write_text(text)
        return {"path": str(empty), **options}

    return make


def named(name: str) -> MakeOptions:
    """Return a build with a Dockerfile of this name."""
    return written({"Dockerfile": "FROM the.wrong/Dockerfile", name: COPY_ALL}, dockerfile=name)


def archive(target: Path | IO[bytes], compression: str = "", **options: Any) -> tarfile.TarFile:
    """Return a tar file to write to."""
    mode: Any = f"w:{compression}"
    given: Any = {"name": target} if isinstance(target, Path) else {"fileobj": target}
    return tarfile.open(mode=mode, **given, **options)


def owned(uid: int, gid: int) -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    """Return a filter that makes this user and group the owner of a tar's members."""

    def filtered(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid = uid, gid
        return member

    return filtered


def tarred(compression: str = "", **options: Any) -> MakeOptions:
    """Return a build of a tar that Python wrote, with an extended header for each file."""

    def make(empty: Path) -> Options:
        for name in ("Dockerfile", ".dockerignore", "x", "docker/file"):
            (empty / name).parent.mkdir(exist_ok=True)
            (empty / name).write_text(COPY_ALL + "LABEL from=tar\n")
            os.chown(empty / name, 1234, 5678)
        content = io.BytesIO()
        with archive(content, compression) as tar:
            for name in sorted(os.listdir(empty)):
                tar.add(empty / name, name)
        content.seek(0)
        return {"fileobj": content, "custom_context": True, **options}

    return make


CASES: dict[str, MakeOptions] = {
    # The content of the context
    "ignored by all kinds of lines": folder("ignored"),
    "ignored but for some": folder("ignored-but"),
    "ignored with the Dockerfile, lines of Windows": folder("ignored-itself"),
    "a nested Dockerfile": folder("nested", dockerfile="docker/app.Dockerfile"),
    "its absolute path": folder("nested", dockerfile=str(CONTEXTS / "nested/docker/app.Dockerfile")),
    "a Dockerfile outside": folder("outside/context", dockerfile="../Dockerfile"),
    "its absolute path outside": folder("outside/context", dockerfile=str(CONTEXTS / "outside/Dockerfile")),
    "a path with a slash at its end": folder("nested/", dockerfile="./docker/../docker/app.Dockerfile"),
    **{f"a Dockerfile {name!r}": named(name) for name in ("-f", "-", " [1]* ", "!x", "a\\b\nc", "Dök er,$HOME")},
    "files of odd names": written(dict.fromkeys(("-rf", "new\nline", "back\\slash", "*", "ü ñ", "a" * 120), "")),
    "gzip": folder("ignored", gzip=True),
    # Ways to pass the context
    "a Dockerfile in memory": lambda _: {"fileobj": io.BytesIO(COPY_ALL.encode()), "dockerfile": "Dockerfile"},
    "a tar": tarred(),
    "a tar by gzip": tarred("gz", encoding="gzip"),
    "a tar by bzip2": tarred("bz2", encoding="bzip2"),
    "a tar by xz": tarred("xz", encoding="xz"),
    "a tar by gzip, not said": tarred("gz"),
    "a plain tar, said to be gzip": tarred(encoding="gzip"),
    "a tar's nested Dockerfile": tarred(dockerfile="/docker/file"),
    # Instructions of the Dockerfile
    "all of a config": folder("config", buildargs={"PORT": "9001"}),
    "shell forms, small letters, Windows' line ends": folder("shells"),
    "stages": folder("stages"),
    "copies": folder("copies"),
    "arguments": folder(
        "arguments",
        buildargs={
            "BASE": BUSYBOX,
            "GIVEN": 'it\'s "q" $HOME `x` \\ = , ; ü\nnext --line',
            "EMPTY": "",
            "UNSET": None,
            "NEITHER": None,
            "dotted.name-ä": "1",
            "not in the Dockerfile": "x",
        },
    ),
    "a stage in other letters, and labels": folder(
        "stages",
        target="SECOND",
        labels={
            "stage": "given",
            "b c": "x=y",
            "quotes": "\"'`$HOME\\",
            "lines": "a\nb",
            "ü,": "日",
            "-x": "--y",
            "0": "",
        },
    ),
    # Other options
    "hosts, shared memory": folder(
        "surroundings", extra_hosts={"one.example": "10.1.2.3", "two": "::1"}, shmsize=32 * 2**20
    ),
    "a list of hosts, shared memory as text, bridge": folder(
        "surroundings",
        extra_hosts=["one.example:10.1.2.3", "two:fe80::1"],
        shmsize="10485760",
        network_mode="bridge",
    ),
    "no network": folder("surroundings", network_mode="none", extra_hosts={}),
    "the host's network": folder("surroundings", network_mode="host", extra_hosts="two:10.1.2.3"),
    "proxies": folder("proxies", buildargs={"HTTP_PROXY": "http://u:p@x:1", "https_proxy": "y", "NO_PROXY": "a,b"}),
    # Options without an effect
    "a short platform": folder("nested", dockerfile="docker/app.Dockerfile", platform="amd64"),
    "defaults": folder(
        "ignored",
        container_limits={},
        squash=False,
        isolation="default",
        forcerm=True,
        rm=False,
        timeout=60,
        target="",
        network_mode="default",
        cache_from=[],
        labels={},
        buildargs={},
    ),
}


def case(make: MakeOptions) -> MakeOptions:
    CASES[make.__name__.replace("_", " ")] = make
    return make


@case
def symbolic_links(empty: Path) -> Options:
    text = COPY_ALL + "COPY to_file /file\nCOPY to_folder /folder/\nCOPY absolute /absolute\n"
    written({"Dockerfile.real": text, "file": "f", "folder/x": "x"})(empty)
    links = {"to_file": "file", "to_folder": "folder", "dangling": "nowhere", "absolute": "/file", "loop": "loop"}
    for name, target in {**links, "up": "../../x", "folder/back": "../file"}.items():
        (empty / name).symlink_to(target)
    (empty / "Dockerfile").unlink()
    (empty / "Dockerfile").symlink_to("Dockerfile.real")
    return {"path": str(empty)}


@case
def a_dockerfile_that_is_a_link_to_another_folder(empty: Path) -> Options:
    written({"common/app.Dockerfile": COPY_ALL, "x": ""})(empty)
    (empty / "docker").mkdir()
    (empty / "docker/Dockerfile").symlink_to("../common/app.Dockerfile")
    return {"path": str(empty), "dockerfile": "docker/Dockerfile"}


@case
def a_context_that_is_a_link_and_its_parents_dockerfile(empty: Path) -> Options:
    written({"a/context/x": "", "Dockerfile": "FROM the.wrong/Dockerfile", "b/Dockerfile": COPY_ALL})(empty)
    (empty / "link").symlink_to("a/context")
    (empty / "a/Dockerfile").symlink_to("../b/Dockerfile")
    return {"path": str(empty / "link"), "dockerfile": "../Dockerfile"}


@case
def modes_owners_and_times(empty: Path) -> Options:
    text = COPY_ALL + "COPY private runs none /one/\nCOPY folder /two\nADD folder /three\nCOPY private /four\n"
    written({"Dockerfile": text, "private": "", "runs": "", "none": "", "folder/x": "", "ro/x": ""})(empty)
    modes = {"private": 0o600, "runs": 0o755, "none": 0, "folder": 0o700, "ro": 0o1555, "folder/x": 0o646}
    for name, mode in modes.items():
        (empty / name).chmod(mode)
        os.chown(empty / name, 1234, 5678)
        os.utime(empty / name, (1e9, 1e9))
    return {"path": str(empty)}


@case
def links_fifos_and_empty_folders(empty: Path) -> Options:
    written({"x": "1" * 300})(empty)
    os.link(empty / "x", empty / "hard")
    os.mkfifo(empty / "fifo")
    (empty / "nothing" / "in here").mkdir(parents=True)
    return {"path": str(empty)}


@case
def archives_that_are_added(empty: Path) -> Options:
    text = "".join(f"ADD x.{kind} /{kind}/\n" for kind in ("", "gz", "bz2", "xz"))
    written({"Dockerfile": f"FROM scratch\n{text}ADD no.tar.gz /no/\nCOPY x. /copied/\n", "no.tar.gz": "no"})(empty)
    for kind in ("", "gz", "bz2", "xz"):
        with archive(empty / f"x.{kind}", kind) as tar:
            tar.add(CONTEXTS / "stages", "stages", filter=owned(5, 7))
    return {"path": str(empty)}


@case
def a_tar_as_bytes_from_its_middle(empty: Path) -> Options:
    given = tarred()(empty)
    return {**given, "fileobj": given["fileobj"].getvalue()}


@case
def a_tar_from_the_middle_of_a_file(empty: Path) -> Options:
    given = tarred("gz")(empty)
    content = io.BytesIO(b"before" + given["fileobj"].getvalue())
    content.seek(6)
    return {**given, "fileobj": content}


@case
def a_dockerfile_in_a_file(_: Path) -> Options:
    content = tempfile.TemporaryFile()  # noqa: SIM115 the build reads it
    content.write(COPY_ALL.encode())
    content.seek(0)
    return {"fileobj": content, "path": "is not looked at"}


@case
def a_base_image_with_triggers(_: Path) -> Options:
    base = f'FROM {BUSYBOX}\nONBUILD COPY a /copied\nONBUILD RUN echo $X > /ran\nENV X=1\nCMD ["base"]\nLABEL base=1\n'
    build(switched_on=False, fileobj=io.BytesIO(base.encode()), tag=f"{PREFIX}/onbuild")
    return {"path": str(CONTEXTS / "inherits"), "labels": {"base": "given"}}


def both(make: MakeOptions, folder: Path) -> tuple[Built, Built]:
    """Return the image of docker-py's builder, and that of this package."""
    options = []
    for name in ("classic", "ours"):
        (folder / name).mkdir()
        options.append(make(folder / name))
    with ThreadPoolExecutor() as pool:
        classic, ours = (
            pool.submit(build, switched_on=switched_on, **one)
            for switched_on, one in zip((False, True), options, strict=True)
        )
    return classic.result(), ours.result()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", CASES)
def test_the_image_is_the_same(name: str, tmp_path: Path) -> None:
    assert differences(*both(CASES[name], tmp_path)) == {}


class Web(http.server.ThreadingHTTPServer):
    """Serve a folder over HTTP."""

    def __init__(self, folder: Path) -> None:
        handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        super().__init__(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(scope="module")
def web(engine_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001 it listens here
    """The address of a server with tars, a Dockerfile and a git repository."""
    served, work = tmp_path_factory.mktemp("web"), tmp_path_factory.mktemp("work")
    written({"x": "1", "docker/file": COPY_ALL + "LABEL from=nested\n", "docker/Dockerfile": COPY_ALL})(work)
    for kind in ("", "gz", "xz"):
        # BuildKit recognizes a remote tar with extended headers only if it is compressed.
        known = tarfile.PAX_FORMAT if kind else tarfile.GNU_FORMAT
        with archive(served / f"context.tar.{kind}", kind, format=known) as tar:
            tar.add(work, "", filter=owned(0, 0))
    (served / "Dockerfile").write_text(f"FROM {BUSYBOX}\nENV X=1\nRUN echo $X > /x\n")
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        (*author, "commit", "--quiet", "--message=first"),
        ("clone", "--quiet", "--bare", ".", str(served / "repository.git")),
        (f"--git-dir={served}/repository.git", "update-server-info"),
    ):
        subprocess.run(["git", *command], cwd=work, check=True)
    with Web(served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


REMOTE: dict[str, Options] = {
    "context.tar.": {},
    "context.tar.gz": {"dockerfile": "docker/file"},
    "context.tar.xz": {"dockerfile": "/docker/file"},
    "Dockerfile": {},
    "repository.git#main": {"buildargs": {"X": "1"}},
    "repository.git#main:docker": {"dockerfile": "file"},
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("place", REMOTE)
def test_the_image_of_a_remote_context_is_the_same(place: str, web: str, tmp_path: Path) -> None:
    classic, ours = both(lambda _: {"path": f"{web}/{place}", **REMOTE[place]}, tmp_path)
    different = differences(classic, ours)
    if place.endswith("main"):
        # Each builder has downloaded the context in its own way.
        assert "/context/.git/HEAD" in classic.files.keys() & ours.files.keys()
        different = {name: each for name, each in different.items() if not name.startswith("/context/.git/")}
    assert different == {}


CONFIGURED = {"httpProxy": "http://u:p@x:1", "httpsProxy": "y", "noProxy": "a,b", "ftpProxy": "f"}
PROXIES: dict[str, Options] = {
    "configured": {},
    "left out": {"use_config_proxy": False},
    "left out for a relative DOCKER_CONFIG": {"use_config_proxy": False},
    "left out by None": {"use_config_proxy": None, "buildargs": {"NO_PROXY": "given"}},
    "given": {"buildargs": {"HTTP_PROXY": "given", "http_proxy": "given", "https_proxy": None, "HTTPS_PROXY": None}},
}


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", PROXIES)
def test_proxies_of_the_dockers_configuration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    (configuration / "cli-plugins").symlink_to(Path(os.environ["DOCKER_CONFIG"]) / "cli-plugins")
    proxies = {"default": {"httpProxy": "other"}, os.environ["DOCKER_HOST"]: CONFIGURED}
    (configuration / "config.json").write_text(json.dumps({"proxies": proxies}))
    relative = os.path.relpath(configuration) if "relative" in name else configuration
    monkeypatch.setenv("DOCKER_CONFIG", str(relative))

    assert differences(*both(folder("proxies", **PROXIES[name]), tmp_path)) == {}


@pytest.mark.parametrize("base", ["changed", "only-here"])
@pytest.mark.parametrize("pull", [False, True])
def test_the_base_image_is_the_same_one(engine: Engine, registry: Registry, base: str, pull: bool) -> None:
    name = f"{registry.address}/{base}-{engine.store}:1"

    def make(label: str) -> None:
        build(switched_on=False, fileobj=io.BytesIO(f"FROM scratch\nLABEL is='{label}'\n".encode()), tag=name)

    if base == "changed":
        make("in the registry")
        engine.run("docker", "push", "--quiet", name)
    make("in the engine")
    found = []
    for switched_on in (False, True):
        try:
            built = build(switched_on=switched_on, fileobj=io.BytesIO(f"FROM {name}\n".encode()), pull=pull)
            found.append(built.config["Labels"]["is"])
        except Failed:
            found.append("none")
        make("in the engine")
    assert found == [("in the registry" if base == "changed" else "none") if pull else "in the engine"] * 2


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("switched_on", [False, True])
def test_nocache_runs_each_step_again(switched_on: bool) -> None:
    def made(nocache: bool) -> str:
        dockerfile = io.BytesIO(f"FROM {BUSYBOX}\nRUN cat /proc/sys/kernel/random/uuid > /made\n".encode())
        return build(switched_on=switched_on, fileobj=dockerfile, nocache=nocache).files["/made"]

    first = made(nocache=True)
    assert made(nocache=False) == first != made(nocache=True)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("options", [{"quiet": True}, {"tag": f"{PREFIX}/same:as"}], ids=str)
@pytest.mark.parametrize("switched_on", [False, True])
def test_images_build_returns_the_image_and_its_log(
    setting: Setting, switched_on: bool, options: dict[str, Any]
) -> None:
    with setting(switched_on), docker_client() as client:
        log: Any
        image, log = client.images.build(path=str(CONTEXTS / "nested"), dockerfile="docker/app.Dockerfile", **options)
        output = "".join(event.get("stream", "") for event in log)
    assert isinstance(image, Image)
    assert image.labels["from"] == "nested"
    assert image.tags == ([options["tag"]] if "tag" in options else [])
    if "quiet" in options:
        assert output == f"{image.id}\n"
    else:
        assert "LABEL from=nested" in output or "COPY . /context/" in output


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("text", "means_on"), [("false", False), (" None ", False), ("off", True)])
def test_a_boolean_given_as_a_string_means_the_same(text: str, means_on: bool) -> None:
    context = str(CONTEXTS / "unique")
    builds_again = []
    for switched_on in (False, True):
        first = build(switched_on=switched_on, path=context, nocache=False)
        again = build(switched_on=switched_on, path=context, nocache=text)
        builds_again.append(first.files["/unique"] != again.files["/unique"])
    assert builds_again == [means_on, means_on]


@pytest.mark.usefixtures("some_engine")
def test_without_decode_events_are_lines_of_json(setting: Setting) -> None:
    with setting(True), docker_client() as client:
        lines = list(client.api.build(path=str(CONTEXTS / "nested"), dockerfile="docker/app.Dockerfile"))
    assert all(isinstance(line, bytes) and line.endswith(b"\r\n") for line in lines)
    assert sum("aux" in json.loads(line) for line in lines) == 1


def missing_file() -> Any:
    content = tempfile.TemporaryFile()  # noqa: SIM115 the build reads it
    content.write(b"FROM scratch")
    content.flush()
    return content  # at its end


# The checks that docker-py makes before a build, with their exceptions.
CHECKS: dict[str, tuple[Callable[[], Options], type[Exception]]] = {
    "nothing given": (dict, TypeError),
    "no such folder": (lambda: {"path": "/nowhere"}, TypeError),
    "an empty path": (lambda: {"path": ""}, TypeError),
    "a file": (lambda: {"path": __file__}, TypeError),
    "no tar": (lambda: {"path": ".", "custom_context": True}, TypeError),
    "text in memory": (lambda: {"fileobj": io.StringIO("FROM scratch")}, TypeError),
    "a text file": (lambda: {"fileobj": open(CONTEXTS / "nested/Dockerfile", encoding="utf-8")}, TypeError),  # noqa: SIM115
    "a file at its end": (lambda: {"fileobj": missing_file()}, OSError),
    "no Dockerfile outside": (lambda: {"path": ".", "dockerfile": "../no/such/Dockerfile"}, FileNotFoundError),
    "a folder outside": (lambda: {"path": ".", "dockerfile": ".."}, IsADirectoryError),
    "an unknown option": (lambda: {"path": ".", "nonsense": 1}, TypeError),
    "gzip twice": (lambda: {"path": ".", "gzip": True, "encoding": "gzip"}, DockerException),
    "no time": (lambda: {"path": ".", "timeout": 0}, ValueError),
    "no number": (lambda: {"path": ".", "timeout": True}, ValueError),
    **{
        f"tag {tag!r}": (functools.partial(dict, path=".", tag=tag), DockerException)
        for tag in ("", "Capital", "a:", "-a", "a:-b", f"a@sha256:{'0' * 64}", f"a:{'b' * 129}")
    },
}


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_docker_py_happen_at_the_call(
    name: str, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, expected = CHECKS[name]
    monkeypatch.chdir(tmp_path)
    raised = []
    for switched_on in (False, True):
        with setting(switched_on), docker_client() as client, pytest.raises(Exception) as error:  # noqa: PT011 it is compared
            client.api.build(**options())
        raised.append(error.value)
    classic, ours = raised
    assert isinstance(classic, expected)
    if expected is DockerException:
        # Prefect reports one of these as an engine that does not run.
        assert type(ours) is OptionError
        assert str(classic).replace("'", '"') in str(ours).replace("'", '"')
    elif expected is ValueError:
        assert type(ours) is OptionError
    else:
        assert type(ours) is type(classic)
        if not isinstance(ours, OSError):  # ours has the absolute path
            assert str(ours) in str(classic)


# Builds that fail, with a part of the message that both builders have.
FAILING: dict[str, tuple[MakeOptions, str]] = {
    "no Dockerfile": (written({}, dockerfile="Nope"), "Cannot locate specified Dockerfile"),
    "no Dockerfile of an odd name": (written({}, dockerfile="[1]"), "Cannot locate specified Dockerfile"),
    "an empty Dockerfile": (written({"Dockerfile": ""}), "cannot be empty"),
    "an unknown instruction": (written({"Dockerfile": "FROM scratch\nCOPPY a b\n"}), "unknown instruction: COPPY"),
    "no such file": (written({"Dockerfile": "FROM scratch\nCOPY nope /\n"}), "COPY failed"),
    "a file that is ignored": (
        written({"Dockerfile": "FROM scratch\nCOPY x /\n", "x": "", ".dockerignore": "x"}),
        "COPY failed",
    ),
    "a step that fails": (written({"Dockerfile": f"FROM {BUSYBOX}\nRUN exit 7\n"}), "returned a non-zero code: 7"),
    "no such stage": (folder("stages", target="nope"), 'target stage "nope" could not be found'),
    "a stage by its number": (folder("stages", target="1"), 'target stage "1" could not be found'),
    "no such platform": (folder("stages", platform="a/b/c/d"), "a/b/c/d"),
    "no address": (folder("stages", extra_hosts={"x": "not-one"}), "not-one"),
    "not a tar": (lambda _: {"fileobj": io.BytesIO(b"no tar" * 999), "custom_context": True}, "tar"),
    "no such repository": (lambda _: {"path": "http://127.0.0.1:1/x.git#main"}, "127.0.0.1"),
}


@pytest.mark.usefixtures("some_engine")
@pytest.mark.parametrize("name", FAILING)
def test_failures_contain_the_phrases_of_the_classic_builder(name: str, tmp_path: Path) -> None:
    make, words = FAILING[name]
    for switched_on in (False, True):
        (tmp_path / str(switched_on)).mkdir()
        with pytest.raises((Failed, OptionError), match=re.escape(words)):
            build(switched_on=switched_on, **make(tmp_path / str(switched_on)))
