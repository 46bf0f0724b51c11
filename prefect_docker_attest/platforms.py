"""Platforms of images and machines: an operating system, a processor architecture and its variant. Pure.

There are two parsers. `Platform.of_user` is strict, because a builder accepts any word: an image for ``linux/amd46``
would be built and pushed. `Platform.of_document` is tolerant, because manifests and engines can name any platform.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

# The words of containerd (platforms/database.go), which BuildKit uses, and the systems of WebAssembly.
_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd hurd illumos ios js linux netbsd openbsd plan9 solaris wasi wasip1 windows "
    "zos".split()
)
_ARCHITECTURES = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv riscv64 s390x sparc64 wasm".split()
)
# containerd's other words, as architecture and variant.
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_SYSTEM_ALIASES = {"macos": "darwin"}
_VARIANTS = {
    "386": re.compile(r"(?!)"),
    "amd64": re.compile(r"v[1-4]"),
    "arm": re.compile(r"v[5-8]"),
    "arm64": re.compile(r"v[89](\.[0-9])?"),
}
_ANY_VARIANT = re.compile(r"[a-z0-9][a-z0-9._-]*")
# A platform without a variant means the same as with this one.
_DEFAULT_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}
_SYSTEM = re.compile(r"(?P<name>[a-z0-9_]+)(?:\([\w.+-]*\))?")  # windows(10.0.17763)

_LOCAL = "local"
_PARTS = 3  # of a complete platform with a variant

# Words that people write, with what they mean.
_MEANT = {
    "armv6l": "armel",
    "armv7l": "armhf",
    "i586": "386",
    "i686": "386",
    "x64": "amd64",
    "x86": "386",
    "intel": "amd64",
    "amd": "amd64",
    "m1": "arm64",
    "apple": "arm64",
}


class NotAPlatformError(ValueError):
    """A user's text is not a platform.

    Attributes:
        nearest: the platform that is probably meant; ``""`` if there is none
    """

    def __init__(self, text: str, nearest: str) -> None:
        super().__init__(f"{text!r} is not a platform")
        self.nearest = nearest


@dataclass(frozen=True)
class Platform:
    """A platform. Two platforms are equal if they mean the same, such as ``linux/aarch64`` and ``linux/arm64/v8``.

    ``str`` gives the text that was parsed, so that command lines, names of caches and messages keep it.

    Attributes:
        os: operating system, such as ``linux``; ``""`` if the user named only an architecture
        architecture: such as ``arm64``; ``""`` if the user named only an operating system
        variant: such as ``v7``; ``""`` for the usual variant of the architecture
        text: the text that was parsed
    """

    os: str
    architecture: str
    variant: str = ""
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.text or "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @classmethod
    def of_user(cls, text: str) -> Self:
        """Parse what a user wrote: ``OS/ARCHITECTURE[/VARIANT]``, a part of it such as ``amd64``, or ``local``.

        Raises:
            NotAPlatformError: the text contains an unknown word
        """
        found = cls._parsed(text)
        if found is None:
            raise NotAPlatformError(text, cls._nearest(text))
        return found

    @classmethod
    def of_document(cls, os: str | None, architecture: str | None, variant: str | None = None) -> Self | None:
        """Return the platform that a document names; `None` if it lacks the operating system or the architecture."""
        if not os or not architecture:
            return None
        text = "/".join(filter(None, (os, architecture, variant)))
        name, its_variant = _ALIASES.get(architecture.lower(), (architecture.lower(), ""))
        return cls(os.lower(), name, _normal_variant(name, (variant or its_variant).lower()), text)

    @classmethod
    def of_text(cls, text: str) -> Self | None:
        """Return the platform that a program printed, such as ``linux/arm64``; `None` for another text."""
        words = text.strip().split("/")
        return cls.of_document(*words) if 1 < len(words) <= _PARTS else None

    @property
    def is_local(self) -> bool:
        """Whether this is buildx's word ``local`` for the platform of the builder."""
        return self.text == _LOCAL

    @property
    def is_complete(self) -> bool:
        """Whether the platform names both an operating system and an architecture, so that it can be compared."""
        return bool(self.os and self.architecture)

    @property
    def processor(self) -> Self:
        """The platform without its variant: variants of a processor usually run each other's programs."""
        return type(self)(self.os, self.architecture, text=f"{self.os}/{self.architecture}")

    def matches(self, other: Platform | None) -> bool:
        """Whether both platforms mean the same."""
        return other is not None and self == other

    def completed(self, engine: Platform) -> Self:
        """Return the platform with the engine's operating system or architecture, if the user did not name it.

        buildx would add those of the machine it runs on, such as ``darwin`` on a Mac.
        """
        if self.is_complete or self.is_local:
            return self
        if self.os:
            return type(self)(self.os, engine.architecture, engine.variant, f"{self.text}/{engine.architecture}")
        return type(self)(engine.os, self.architecture, self.variant, f"{engine.os}/{self.text}")

    @classmethod
    def _parsed(cls, text: str) -> Self | None:
        if text == _LOCAL:
            return cls("", "", text=text)
        first, *words = text.lower().split("/")
        system = _SYSTEM.fullmatch(first)
        name = _SYSTEM_ALIASES.get(system["name"], system["name"]) if system else ""
        if name not in _SYSTEMS:
            name, words = "", [first, *words]  # only an architecture, perhaps with a variant
        elif not words:
            return cls(name, "", text=text)
        processor = _processor(*words) if len(words) < _PARTS else None
        return cls(name, *processor, text) if processor else None

    @classmethod
    def _nearest(cls, text: str) -> str:
        words = [_MEANT.get(word, word) for word in re.split(r"[/:,_\s-]+", text.lower().strip())]
        # "arm64v8" and "arm32v7" are names of repositories.
        words = [re.sub(r"^arm(?:32|64)?(v\d)$", _with_slash, word) for word in words]
        systems = difflib.get_close_matches(words[0], _SYSTEMS, n=1, cutoff=0.7)
        rest = words[1:] if systems and len(words) > 1 else words
        system = f"{systems[0]}/" if systems and len(words) > 1 else ""
        architecture, *variant = "/".join(rest).split("/")
        near = difflib.get_close_matches(architecture, [*_ARCHITECTURES, *_ALIASES], n=1, cutoff=0.5)
        for candidate in ("/".join([architecture, *variant]), *near):
            if cls._parsed(f"{system}{candidate}"):
                return f"{system}{candidate}"
        return systems[0] if systems and len(words) == 1 else ""


def _processor(word: str, variant: str | None = None) -> tuple[str, str] | None:
    """Return an architecture and its variant, from a user's words; `None` for an unknown word."""
    architecture, of_alias = _ALIASES.get(word, (word, ""))
    if variant is None:
        variant = of_alias
    else:
        variant = _with_v(architecture, variant)
        if not _VARIANTS.get(architecture, _ANY_VARIANT).fullmatch(variant):
            return None
    return (architecture, _normal_variant(architecture, variant)) if architecture in _ARCHITECTURES else None


def _with_v(architecture: str, variant: str) -> str:
    return f"v{variant}" if variant and architecture in _VARIANTS and not variant.startswith("v") else variant


def _normal_variant(architecture: str, variant: str) -> str:
    variant = _with_v(architecture, variant)
    return "" if variant == _DEFAULT_VARIANTS.get(architecture) else variant


def _with_slash(found: re.Match[str]) -> str:
    architecture = "arm64" if found[1] == "v8" else "arm"
    return f"{architecture}/{found[1]}"
