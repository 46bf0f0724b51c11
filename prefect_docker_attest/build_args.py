"""Build arguments as a child process gets them: names on the command line, values in its environment. Pure.

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
# The docker CLI sets some of these for its plugins.
_CHANGED_ON_THE_WAY = ("DOCKER_", "OTEL_")


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
