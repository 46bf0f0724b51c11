"""Build arguments: names on a child's command line, values in its environment, names again in its output. Pure.

Any user of the machine can read a command line, so ``--build-arg=NAME`` names an argument, and buildx takes its value
from its own environment. A name that a tool in that process tree reads would change what the tool does there (measured:
AWS credentials given as build arguments reached a credential helper), so such reserved names keep their value on the
command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The docker CLI, buildx, ssh and git, credential helpers (which may be scripts of any language), the C library.
_RESERVED_PREFIXES = (
    "DOCKER_ BUILDX_ BUILDKIT_ EXPERIMENTAL_BUILDKIT_ COMPOSE_ CONTAINERS_ REGISTRY_AUTH KUBERNETES_ AWS_ AZURE_ "
    "GOOGLE_ GCLOUD CLOUDSDK_ GIT_ SSH_ SSL_ OPENSSL GO XDG_ ACTIONS_ OTEL_ JAEGER_ LD_ DYLD_ LC_ MALLOC_ PYTHON "
    "REQUESTS_ NODE_ PERL RUBY JAVA_ _JAVA_ JDK_ DOTNET_ BASH GPG GNUPG DBUS_ PASSWORD_STORE_ CURL_ KRB5"
).split()
_RESERVED_NAMES = frozenset(
    "PATH HOME USER SHELL TMPDIR TMP TEMP KUBECONFIG SOURCE_DATE_EPOCH NO_COLOR TERM LANG LANGUAGE TZ IFS ENV CDPATH "
    "SHELLOPTS ZDOTDIR NETRC DISPLAY GLIBC_TUNABLES GCONV_PATH LOCPATH HOSTALIASES LOCALDOMAIN RES_OPTIONS "
    "REQUEST_METHOD TRACEPARENT TRACESTATE SYSTEMROOT COMSPEC PATHEXT APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES "
    "USERPROFILE WINDIR".split()
)
_CREDENTIAL = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH(?!OR)", re.IGNORECASE)
_PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
# The docker CLI sets some of these for its plugins.
_CHANGED_ON_THE_WAY = ("DOCKER_", "OTEL_")

# BuildKit names a step by its instruction with the values put in, line breaks included; it does so once more where the
# step failed. What follows such a name begins with "#" again, is empty, or ends what was repeated.
_STEP = re.compile(r"#\d+ \[| > \[")
_NOT_A_STEP = re.compile(r"#|------|\s*$")
_SHORTEST = 6  # characters; what is shorter is found everywhere, and keeps no secret


@dataclass(frozen=True)
class BuildArguments:
    """Build arguments, made ready for one child process.

    Attributes:
        flags: the values of ``--build-arg``
        environment: what the child's environment gets on top of its own
        exposed: names of credentials, by their look, whose value stands on the command line
    """

    flags: tuple[str, ...]
    environment: Mapping[str, str]
    exposed: tuple[str, ...]


def is_reserved(name: str) -> bool:
    """Whether a tool that a build starts may read this environment variable (in any case of letters)."""
    name = name.upper()
    return name in _RESERVED_NAMES or name.endswith("_PROXY") or name.startswith(tuple(_RESERVED_PREFIXES))


def prepare(build_args: Mapping[str, str], parent_environment: Mapping[str, str]) -> BuildArguments:
    """Split build arguments into command line and environment.

    Args:
        build_args: values by name
        parent_environment: what the child inherits; a name that stands there with another value is reserved, one with
            this value is not, whoever reads it
    """
    flags, environment, exposed = [], {}, []
    for name, value in build_args.items():
        inherited = parent_environment.get(name)
        if inherited == value and not name.startswith(_CHANGED_ON_THE_WAY):
            flags.append(name)
        elif is_reserved(name) or inherited is not None:
            flags.append(f"{name}={value}")
            if _CREDENTIAL.search(name):
                exposed.append(name)
        else:
            flags.append(name)
            environment[name] = value
    return BuildArguments(tuple(flags), environment, tuple(exposed))


class Mask:
    """Puts names, ``$NAME``, in the place of values in the output of a build.

    In the names of steps that is done with every value, as in the Dockerfile; with one that looks like a credential,
    by its name or for a password in an address, anywhere.

    Args:
        build_args: values by name
    """

    def __init__(self, build_args: Mapping[str, str]) -> None:
        names = {part: f"${name}" for name, value in build_args.items() for part in _parts(value)}
        secret = {part for name, value in build_args.items() if _is_credential(name, value) for part in _parts(value)}
        # A value that holds another one comes first.
        self._all = sorted(names.items(), key=lambda item: -len(item[0]))
        self._secret = [item for item in self._all if item[0] in secret]
        self._in_step = False

    def __call__(self, line: str) -> str:
        """The next line of output, as it may be shown."""
        if not self._all:
            return line
        if _STEP.match(line):
            self._in_step = True
        elif _NOT_A_STEP.match(line):
            self._in_step = False
        for part, name in self._all if self._in_step else self._secret:
            if part in line:
                line = line.replace(part, name)
        return line


def _parts(value: str) -> list[str]:
    return [part for part in map(str.strip, value.split("\n")) if len(part) >= _SHORTEST]


def _is_credential(name: str, value: str) -> bool:
    return bool(_CREDENTIAL.search(name) or _PASSWORD_IN_ADDRESS.search(value))
