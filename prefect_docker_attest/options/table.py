"""The table of build options, and the command line that is made from it. Pure.

Each option is one row: a field of `BuildxOptions`. A new option also needs values in ``tests/unit``, a test on an
engine, and its line in ``docs/options.md``, which ``scripts/tox -e options`` writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_docker_attest.options import values

if TYPE_CHECKING:
    from typing_extensions import Self

    from prefect_docker_attest.layer_compression import Compression
    from prefect_docker_attest.platforms import Platform

T = TypeVar("T")

Version = tuple[int, int, int]
"""A version of buildx."""


def _row(flag: str, default: T, convert: Callable[[str, Any], T], meaning: str, **columns: Any) -> T:
    """Return a field of `BuildxOptions` that is a row of the table. The parameters are the attributes of `Row`."""
    metadata = {"flag": flag, "convert": convert, "meaning": meaning, **columns}
    return field(default_factory=lambda: default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class BuildxOptions:
    """The options of one ``docker buildx build``. Every field except the first three is a row of the table.

    The fourth argument of each row describes the field. An option that is not set has the row's default value: `None`,
    `False` or an empty collection.

    Attributes:
        context: build context: an absolute path, a URL, or ``-`` for standard input
        pushed_to: repository to which the builder pushes the image without a tag; ``""`` if it does not
        attestations_disabled: whether the image must not have attestations, whatever it requests
    """

    context: str
    pushed_to: str = ""
    attestations_disabled: bool = False
    file: str | None = _row(
        "--file", None, values.absolute_path, "The Dockerfile.", docker_py="dockerfile", python_on_whales="file"
    )
    tags: tuple[str, ...] = _row(
        "--tag", (), values.strings, "The names of the image.", docker_py="tag", python_on_whales="tags"
    )
    platforms: tuple[Platform, ...] = _row(
        "--platform",
        (),
        values.platforms,
        "The platforms to build for, such as `linux/amd64`: a list, or a string with commas.",
        python_on_whales="platforms",
    )
    build_args: Mapping[str, str] = _row(
        "--build-arg",
        {},
        values.build_args,
        "Build arguments. buildx reads their values from its environment, so other users cannot see them. Only the "
        "values of names that other programs read, such as `AWS_*` or `PATH`, are on the command line.",
        docker_py="buildargs",
        python_on_whales="build_args",
    )
    labels: Mapping[str, str] = _row(
        "--label", {}, values.string_map, "Labels of the image.", docker_py="labels", python_on_whales="labels"
    )
    target: str | None = _row(
        "--target", None, values.optional_string, "The stage to build.", docker_py="target", python_on_whales="target"
    )
    network: str | None = _row(
        "--network",
        None,
        values.network,
        "The network of `RUN` steps: `default` (also `bridge`), `none` or `host`. BuildKit has no others.",
        docker_py="network_mode",
        python_on_whales="network",
    )
    no_cache: bool = _row("--no-cache", False, values.switch, "Build every step again.", docker_py="nocache")
    no_cache_filter: tuple[str, ...] = _row(
        "--no-cache-filter",
        (),
        values.strings,
        "Stages whose steps are all built again. This option cannot be combined with `nocache`.",
    )
    pull: bool = _row(
        "--pull", False, values.switch, "Look for newer base images.", docker_py="pull", python_on_whales="pull"
    )
    quiet: bool = _row("--progress=quiet", False, values.switch, "Print only the image's id.", docker_py="quiet")
    shm_size: int | None = _row("--shm-size", None, values.size, "Size of `/dev/shm` in bytes.", docker_py="shmsize")
    ulimit: tuple[str, ...] = _row(
        "--ulimit",
        (),
        values.key_values,
        "Limits of `RUN` steps, such as `nofile=1024:2048`: a list of strings, or a mapping.",
    )
    cgroup_parent: str | None = _row(
        "--cgroup-parent",
        None,
        values.optional_string,
        "The parent of the control groups of `RUN` steps. buildx 0.11.0 ignores it.",
    )
    add_hosts: tuple[str, ...] = _row(
        "--add-host",
        (),
        values.hosts,
        "Entries of `/etc/hosts`: a mapping of names to addresses, or `name:address` strings.",
        docker_py="extra_hosts",
        python_on_whales="add_hosts",
    )
    allow: tuple[str, ...] = _row(
        "--allow",
        (),
        values.strings,
        "Entitlements: `network.host` for `RUN --network=host`; `security.insecure`, which the engine must allow too.",
        python_on_whales="allow",
    )
    cache_from: tuple[str, ...] = _row(
        "--cache-from",
        (),
        values.strings,
        "Caches to read, such as `type=registry,ref=NAME`. The name of an image works only if its build wrote a cache "
        "into the image; each build with such a name logs this as a warning.",
        docker_py="cache_from",
        python_on_whales="cache_from",
    )
    cache_to: tuple[str, ...] = _row(
        "--cache-to",
        (),
        values.strings,
        "Caches to write, such as `type=registry,ref=NAME` or `type=inline`.",
        python_on_whales="cache_to",
    )
    provenance: str | None = _row(
        "--provenance",
        None,
        values.attestation,
        "Provenance attestation: `True`, `False`, or attributes such as `mode=max`.",
        python_on_whales="provenance",
    )
    sbom: str | None = _row(
        "--sbom",
        None,
        values.attestation,
        "SBOM attestation: `True`, `False`, or attributes such as `generator=NAME`.",
        python_on_whales="sbom",
    )
    attest: tuple[str, ...] = _row(
        "--attest", (), values.strings, "Attestations, such as `type=sbom`.", python_on_whales="attest"
    )
    secrets: tuple[str, ...] = _row(
        "--secret",
        (),
        values.secrets,
        "Secrets for `RUN --mount=type=secret`: `id=NAME,env=VARIABLE` or `id=NAME,src=FILE`.",
        python_on_whales="secrets",
    )
    ssh: tuple[str, ...] = _row(
        "--ssh", (), values.strings, "SSH agents or keys for `RUN --mount=type=ssh`.", python_on_whales="ssh"
    )
    build_contexts: Mapping[str, str] = _row(
        "--build-context",
        {},
        values.string_map,
        "Additional build contexts: a mapping of names to folders, URLs or `docker-image://NAME`.",
        python_on_whales="build_contexts",
    )
    builder: str | None = _row(
        "--builder", None, values.builder, "A builder from `docker buildx ls`.", python_on_whales="builder"
    )
    annotations: tuple[str, ...] = _row(
        "--annotation",
        (),
        values.key_values,
        "Annotations of the manifest: a mapping, or `key=value` strings. They need the containerd image store, or a "
        "builder that pushes the image.",
        since=(0, 12, 0),
    )
    media_types: str | None = _row(
        "--output",
        None,
        values.media_types,
        "The media types of the image in the registry: `docker` or `oci`. `oci` needs the containerd image store, or "
        "a builder that pushes the image. Attestations need `oci`.",
    )
    compression: Compression | None = _row(  # noqa: RUF009 `_row` makes a field
        "--output",
        None,
        values.compression,
        "The compression of new layers: `zstd`, `gzip` or `uncompressed`, or with a level `zstd:0` to `zstd:22` and "
        "`gzip:0` to `gzip:9`. It needs the containerd image store, or a builder that pushes the image. `gzip` without "
        "a level works everywhere. `zstd` and `uncompressed` imply the media types `oci`.",
    )
    push: bool = _row(
        "--push",
        False,
        values.switch,
        'Push the image instead of loading it into the engine. It works only with `build_backend="buildx"`.',
        python_on_whales="push",
    )

    @property
    def local_dockerfile(self) -> str | None:
        """The path of the Dockerfile; `None` if it is on standard input, or in a tar or remote context."""
        if not os.path.isabs(self.context):
            return None
        path = self.file or os.path.join(self.context, "Dockerfile")
        return path if os.path.isabs(path) else None

    @property
    def multi_platform(self) -> bool:
        """Whether the image has several platforms, so that it is always an index."""
        return len(self.platforms) > 1

    @property
    def requested_attestations(self) -> list[str]:
        """The options that request attestations, such as ``provenance=mode=max``."""
        requested = {"provenance": self.provenance, "sbom": self.sbom, "attest": ",".join(self.attest)}
        return [f"{name}={value}" for name, value in requested.items() if value and parse_bool(value) is not False]

    def without_attestations(self) -> Self:
        """Return the options of an image that must not have attestations."""
        return replace(self, attestations_disabled=True, provenance="false", sbom="false", attest=())


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
        name: name of the field of `BuildxOptions`
        flag: flag of ``docker buildx build``
        convert: function that converts the option's name and value in a call into the field's value (see `values`)
        meaning: documentation of the option
        docker_py: name of the option in docker-py's ``build``; `None` for a buildx-only option, which users give under
            `name`
        python_on_whales: name of the option in python-on-whales' ``buildx.build``; `None` if it has no such option
        since: first version of buildx that has the flag, for the error of an older buildx; `None` if every supported
            version has it
    """

    name: str
    flag: str
    convert: Callable[[str, Any], Any]
    meaning: str
    docker_py: str | None = None
    python_on_whales: str | None = None
    since: Version | None = None


ROWS = tuple(Row(name=column.name, **column.metadata) for column in fields(BuildxOptions) if column.metadata)
"""The table, in the order of the command line."""


def arguments(options: BuildxOptions, build_args: Sequence[str], metadata_file: str) -> list[str]:
    """Return the arguments after ``docker buildx build``.

    Every value is part of its flag's argument, and the context is the last argument, after ``--``. So a value that
    starts with a dash cannot be read as a flag.

    Args:
        options: options of the build
        build_args: values of ``--build-arg`` (see `prefect_docker_attest.options.build_args`)
        metadata_file: path of the file for buildx's metadata
    """
    # With ``--tag``, buildx would push the tags too.
    tags = () if options.pushed_to else options.tags
    values_by_row = {**vars(options), "tags": tags, "build_args": build_args}
    return [
        *(() if options.quiet else ("--progress=plain",)),
        _output(options),
        f"--metadata-file={metadata_file}",
        *(
            argument
            for row in ROWS
            if row.flag not in _OUTPUT
            for argument in _arguments(row.flag, values_by_row[row.name])
        ),
        "--",
        options.context,
    ]


_OUTPUT = ("--output", "--push")


def _output(options: BuildxOptions) -> str:
    """Return the flag for the destination of the image. ``--load`` and ``--push`` are short forms of ``--output``."""
    form = "".join(f",{attribute}" for attribute in _form(options))
    if options.pushed_to:
        # Without `store=false`, some builders would keep the image under this name.
        return f"--output=type=image,name={options.pushed_to},push=true,push-by-digest=true,store=false{form}"
    if not form:
        return "--push" if options.push else "--load"
    return f"--output=type={'registry' if options.push else 'docker'}{form}"


def _form(options: BuildxOptions) -> Iterator[str]:
    """Yield the attributes of ``--output`` for the media types and the compression of an image."""
    if options.media_types:
        yield f"oci-mediatypes={'true' if options.media_types == 'oci' else 'false'}"
    if compression := options.compression:
        yield f"compression={compression.method}"
        if compression.level is not None:
            yield f"compression-level={compression.level}"
        # Layers that are in the builder's cache keep the compression that they have there. With Docker's media types,
        # engines do not know zstd. This changes no layer that has the right compression, so not those of base images.
        if compression.method == "gzip" or options.media_types == "docker":
            yield "force-compression=true"


def _arguments(flag: str, value: Any) -> list[str]:
    if value is None or isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, (str, int)):
        return [f"{flag}={value}"]
    entries = [f"{name}={entry}" for name, entry in value.items()] if isinstance(value, Mapping) else value
    return [f"{flag}={entry}" for entry in entries]


def parse_bool(text: str) -> bool | None:
    """Read a boolean as buildx reads its flags and variables (Go's ``strconv.ParseBool``); `None` for another text."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    return False if text in ("0", "f", "F", "FALSE", "false", "False") else None


def first_version(flag: str) -> tuple[str, Version] | None:
    """Return the option of a flag, and the first version of buildx that has the flag; `None` if it is not in the table.

    Args:
        flag: such as ``--annotation``, as in buildx's error ``unknown flag: --annotation``
    """
    return next(((row.docker_py or row.name, row.since) for row in ROWS if row.flag == flag and row.since), None)
