"""Prefect's ``build_backend="buildx"`` while the setting is on: one attempt of it, with python-on-whales' option names.

Passing ``provenance=False`` on to python-on-whales would not do: it reads the image's id from buildx's ``--iidfile``,
which names no image of the engine in just that case, it shows its progress on the terminal alone, and its errors hold
no word that Prefect's retries look for. Around an attempt, Prefect's own checks, labels and retries stay.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prefect_docker_attest import buildx, errors, manifest, options, switch
from prefect_docker_attest.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

MEANINGLESS = {
    "stream_logs": "progress goes to Prefect's stream_progress_to, line by line, in any case",
    "load": "an image is loaded into the engine, unless it is pushed",
}
"""Options of python-on-whales' ``buildx.build`` that change nothing here, with the reason."""


def install(module: ModuleType) -> None:
    """Take over `_buildx_build_once`, which both `DockerImage` and prefect-docker's step reach by way of the retries.

    A second call does nothing, nor does one for a module that has its functions from another: newer Prefect keeps their
    old address.

    Args:
        module: ``prefect._internal.buildx``, before Prefect 3.7.1 ``prefect.docker._buildx``

    Raises:
        TypeError: a module of another shape; nothing is changed
    """
    original: Any = getattr(module, "_buildx_build_once", None)
    entry: Any = getattr(module, "buildx_build_image", None)
    if _is_ours(original) or getattr(entry, "__module__", module.__name__) != module.__name__:
        return
    if not callable(original):
        raise TypeError(f"{module.__name__} has no function _buildx_build_once: this version of Prefect is not known")
    replacement: Any = _deciding(original)
    replacement.builds_without_attestations = True
    module._buildx_build_once = replacement  # type: ignore[attr-defined]  # noqa: SLF001


def uninstall(module: ModuleType) -> None:
    """Undo `install`."""
    ours: Any = getattr(module, "_buildx_build_once", None)
    if _is_ours(ours):
        module._buildx_build_once = ours.__wrapped__  # type: ignore[attr-defined]  # noqa: SLF001


def _is_ours(function: object) -> bool:
    return getattr(function, "builds_without_attestations", False)


def _deciding(original: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(original)
    def _buildx_build_once(*args: Any, **kwargs: Any) -> str:
        return build(*args, **kwargs) if switch.attestations_disabled() else original(*args, **kwargs)

    return _buildx_build_once


def build(  # noqa: PLR0917 the signature of Prefect's function
    context: str | os.PathLike[str],
    dockerfile: str = "Dockerfile",
    tags: list[str] | None = None,
    pull: bool = False,
    platforms: list[str] | None = None,
    stream_progress_to: TextIO | None = None,
    push: bool = False,
    labels: dict[str, str] | None = None,
    **whales: Any,
) -> str:
    """Build one image without attestations, in the docker CLI's current context, from where Prefect pushes it.

    Args:
        context: the folder of the build context
        dockerfile: the Dockerfile, relative to the context
        tags: the image's names
        pull: whether base images are looked up anew
        platforms: ``os/architecture`` each
        stream_progress_to: what gets each line of output as it comes
        push: push to the registry in place of loading into the engine
        labels: the image's labels
        whales: further options of python-on-whales' ``buildx.build``

    Returns:
        the engine's id of the image; of one that was pushed its first tag, as Prefect returns it

    Raises:
        TypeError: an option that python-on-whales does not know either
        OptionError: an option that cannot be carried out
        BuildFailed: the build failed, or its result is not what was asked for
    """
    file = os.path.join(context, dockerfile)
    path = os.path.abspath(whales.pop("context_path", context))
    metadata_file, shown = whales.pop("metadata_file", None), whales.pop("progress", "auto") is not False
    wanted = options.BuildxOptions(
        context=path,
        file=os.path.abspath(whales.pop("file", file)),
        tags=options.texts("tags", tags),
        platforms=options.texts("platforms", platforms),
        labels=options.pairs("labels", labels),
        pull=pull,
        push=_pushes(whales.pop("output", None), push=push),
        **_from_whales(whales),
    )
    stream = stream_progress_to if shown else None
    try:
        attempt = buildx.Build(buildx.without_attestations(wanted), attestations=False)
        with contextlib.closing(attempt.output()) as lines:
            for line in lines:
                if stream:
                    stream.write(line)
                    stream.flush()
        image = _pushed(wanted, attempt.metadata) if wanted.push else _image_in_engine(attempt.metadata)
    except errors.BuildFailed as failure:
        if stream is None:
            buildx.log_output_of(failure)
        raise
    if metadata_file is not None:
        Path(metadata_file).write_text(json.dumps(attempt.metadata), encoding="utf-8")
    if stream_progress_to and not wanted.push:
        stream_progress_to.write(f"Built image: {image}\n")
        stream_progress_to.flush()
    return image


def _pushes(output: Mapping[str, str] | None, *, push: bool) -> bool:
    if not output or output == {"type": "docker"}:
        return push
    if output in ({"type": "registry"}, {"type": "image", "push": "true"}):
        return True
    raise OptionError(
        "output", "Prefect can only use an image in the engine, or one that is pushed (push=True)", output
    )


# One function an option of python-on-whales that is said by one of buildx's flags.
_CONVERT: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "add_hosts": ("add_hosts", lambda value: tuple(f"{k}:{v}" for k, v in options.pairs("add_hosts", value).items())),
    "allow": ("allow", lambda value: options.texts("allow", value)),
    "attest": ("attest", lambda value: options.texts("attest", value)),
    "build_args": ("build_args", lambda value: options.pairs("build_args", value)),
    "build_contexts": ("build_contexts", lambda value: options.pairs("build_contexts", value)),
    "builder": ("builder", lambda value: value and options.text("builder", getattr(value, "name", value))),
    "cache": ("no_cache", lambda value: not value),
    "cache_from": ("cache_from", lambda value: options.texts("cache_from", value)),
    "cache_to": ("cache_to", lambda value: options.texts("cache_to", value)),
    "network": ("network", lambda value: value and options.text("network", value)),
    "provenance": ("provenance", lambda value: options.attestation("provenance", value)),
    "sbom": ("sbom", lambda value: options.attestation("sbom", value)),
    "secrets": ("secrets", options.secrets),
    "ssh": ("ssh", lambda value: options.texts("ssh", value)),
    "target": ("target", lambda value: value and options.text("target", value)),
}


def _from_whales(whales: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(whales.keys() - _CONVERT.keys() - MEANINGLESS.keys())
    if unknown:
        raise TypeError(f"build() got an unexpected keyword argument {unknown[0]!r}")
    return {_CONVERT[name][0]: _CONVERT[name][1](value) for name, value in whales.items() if name in _CONVERT}


def _image_in_engine(metadata: buildx.Metadata) -> str:
    digests = manifest.image_ids(metadata)
    for digest in digests:
        found = buildx.ask(("docker",), "image", "inspect", "--format={{.Id}}", digest)
        if found.returncode == 0:
            return found.stdout.strip()
    raise errors.BuildFailed(buildx.image_is_elsewhere(("docker",), "the docker CLI's current context", digests))


def _pushed(wanted: options.BuildxOptions, metadata: buildx.Metadata) -> str:
    """The first tag, once the registry's index of several platforms has been seen to hold no attestation."""
    tag, digest = wanted.tags[0], metadata.get("containerimage.digest")
    if wanted.multi_platform and digest:
        answer = buildx.ask(("docker",), "buildx", "imagetools", "inspect", "--raw", f"{tag}@{digest}")
        if answer.returncode == 0 and manifest.attestations(json.loads(answer.stdout)):
            raise errors.BuildFailed(
                f"{tag} was pushed with attestations, although they are off. {errors.INSTALL_BUILDX}"
            )
    return tag
