"""Passes build arguments to buildx through its environment. Pure.

Any user of the machine can read a command line. So the command line has only ``--build-arg=NAME``, and buildx reads the
value from its environment. Some names are reserved, because a program that buildx starts reads them: AWS credentials
that were build arguments reached a credential helper in a test. The values of reserved names stay on the command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s:@]*:(?P<password>[^/\s@]+)@")
"""Finds the password in an address, such as ``https://user:password@host/simple``."""

# Read by the docker CLI, buildx, ssh, git, the C library, and credential helpers, which can be scripts of any language.
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
# The docker CLI sets some variables with these prefixes for its plugins.
_CHANGED_BY_DOCKER = ("DOCKER_", "OTEL_")


@dataclass(frozen=True)
class BuildArguments:
    """Build arguments for one child process.

    Attributes:
        flags: values of ``--build-arg``: ``NAME``, or ``NAME=value`` for reserved names
        environment: variables to add to the child's environment
        visible_credentials: names of values that look like credentials and are on the command line
    """

    flags: tuple[str, ...]
    environment: Mapping[str, str]
    visible_credentials: tuple[str, ...]


def is_reserved(name: str) -> bool:
    """Whether a program that a build starts can read this environment variable. The case of letters is ignored."""
    name = name.upper()
    return name in _RESERVED_NAMES or name.endswith("_PROXY") or name.startswith(tuple(_RESERVED_PREFIXES))


def prepare(build_args: Mapping[str, str], parent_environment: Mapping[str, str]) -> BuildArguments:
    """Divide build arguments between command line and environment.

    Args:
        build_args: values by name
        parent_environment: the environment that the child inherits. A name that has another value there is reserved;
            a name that has the same value there is never reserved
    """
    flags, environment, visible_credentials = [], {}, []
    for name, value in build_args.items():
        inherited = parent_environment.get(name)
        if inherited == value and not name.startswith(_CHANGED_BY_DOCKER):
            flags.append(name)
        elif is_reserved(name) or inherited is not None:
            flags.append(f"{name}={value}")
            if is_credential(name, value):
                visible_credentials.append(name)
        else:
            flags.append(name)
            environment[name] = value
    return BuildArguments(tuple(flags), environment, tuple(visible_credentials))


def is_credential(name: str, value: str) -> bool:
    """Whether a build argument looks like a credential: by its name, or because it is an address with a password."""
    return bool(_CREDENTIAL.search(name) or PASSWORD_IN_ADDRESS.search(value))
