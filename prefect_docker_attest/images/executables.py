"""Finds the processor and the operating system of an executable from its first bytes: ELF, Mach-O or PE. Pure."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

HEAD = 4096
"""Number of bytes from the start of a file that `read_executable` needs."""

MAGIC = 4
"""Number of bytes from the start of a file that `may_be_executable` needs."""

_ELF, _PE = b"\x7fELF", b"MZ"
_MACH_O = {b"\xfe\xed\xfa\xce": ">", b"\xfe\xed\xfa\xcf": ">", b"\xce\xfa\xed\xfe": "<", b"\xcf\xfa\xed\xfe": "<"}
_UNIVERSAL = b"\xca\xfe\xba\xbe"
# Number of architectures in a universal binary. A Java class starts with the same magic number; it has its version
# there, which is 45 or more.
_MOST_ARCHITECTURES = 16

# (e_machine, class, byte order) of an ELF file (elf.h) -> GOARCH, which names processors in image platforms.
_ELF_PROCESSORS = {
    (3, 32, "<"): "386",
    (62, 64, "<"): "amd64",
    (62, 32, "<"): "amd64",  # x32
    (40, 32, "<"): "arm",
    (183, 64, "<"): "arm64",
    (258, 64, "<"): "loong64",
    (8, 32, ">"): "mips",
    (8, 32, "<"): "mipsle",
    (8, 64, ">"): "mips64",
    (8, 64, "<"): "mips64le",
    (21, 64, ">"): "ppc64",
    (21, 64, "<"): "ppc64le",
    (243, 64, "<"): "riscv64",
    (22, 64, ">"): "s390x",
}
_NO_PROCESSORS = (
    0,
    190,
    224,
    247,
)  # e_machine of no machine, of graphics cards (CUDA and AMD), and of the kernel (BPF)
_ELF_SYSTEMS = {2: "netbsd", 6: "solaris", 9: "freebsd", 12: "openbsd"}  # EI_OSABI; Linux uses 0 and 3
_MACH_O_PROCESSORS = {7: "386", 0x1000007: "amd64", 12: "arm", 0x100000C: "arm64"}
_PE_PROCESSORS = {0x14C: "386", 0x8664: "amd64", 0x1C0: "arm", 0x1C4: "arm", 0xAA64: "arm64"}

_ELF_TYPES = (2, 3)  # ET_EXEC and ET_DYN: programs and libraries, but not object files and kernel modules (ET_REL)
_MACH_O_TYPES = (2, 6, 8)  # programs, libraries, plugins
_PT_INTERP = 3
_MOST_SEGMENTS = 64


class Executable(NamedTuple):
    """A program or a shared library.

    Attributes:
        system: such as ``linux``, derived from the file format
        processor: GOARCH name of the processor, or ``machine-NUMBER`` if it has none; a universal binary has several,
            joined by ``+``
        loader: path of the dynamic loader; `None` for a file that needs none
    """

    system: str
    processor: str
    loader: str | None = None

    @property
    def platform(self) -> str:
        """The platform, such as ``linux/arm64``."""
        return f"{self.system}/{self.processor}"


def may_be_executable(start: bytes) -> bool:
    """Whether a file that starts with these `MAGIC` bytes can be an executable."""
    return start.startswith((_ELF, _PE, _UNIVERSAL)) or start in _MACH_O


def read_executable(head: bytes) -> Executable | None:
    """Return the executable; `None` for another file, or for a program of a graphics card.

    Args:
        head: the first `HEAD` bytes of the file, or the whole file if it is shorter
    """
    try:
        found = _read(head)
    except (struct.error, IndexError):  # the file is cut off
        return None
    return _shared(*found) if found else None


@lru_cache(1024)
def _shared(system: str, processor: str, loader: str | None) -> Executable:
    """Return the same object for equal values, to save memory: a layer can hold thousands of executables."""
    return Executable(system, processor, loader)


def _read(head: bytes) -> tuple[str, str, str | None] | None:
    if head.startswith(_ELF):
        return _elf(head)
    if head.startswith(_PE):
        return _pe(head)
    if head.startswith(_UNIVERSAL):
        return _universal(head)
    order = _MACH_O.get(head[:MAGIC])
    return _mach_o(head, order) if order else None


def _elf(head: bytes) -> tuple[str, str, str | None] | None:
    bits, order = {1: 32, 2: 64}.get(head[4]), {1: "<", 2: ">"}.get(head[5])
    if bits is None or order is None:
        return None
    kind, machine = struct.unpack_from(f"{order}HH", head, 16)
    if kind not in _ELF_TYPES or machine in _NO_PROCESSORS:
        return None
    processor = _ELF_PROCESSORS.get((machine, bits, order), f"machine-{machine}")
    return _ELF_SYSTEMS.get(head[7], "linux"), processor, _loader(head, bits, order)


def _loader(head: bytes, bits: int, order: str) -> str | None:
    """Return the path in the segment PT_INTERP, which is near the start of the file."""
    if bits == 32:  # noqa: PLR2004
        (start,), (size, number) = struct.unpack_from(f"{order}I", head, 28), struct.unpack_from(f"{order}HH", head, 42)
        segment, offset_at, size_at = f"{order}IIIII", 1, 4
    else:
        (start,), (size, number) = struct.unpack_from(f"{order}Q", head, 32), struct.unpack_from(f"{order}HH", head, 54)
        segment, offset_at, size_at = f"{order}IIQQQQ", 2, 5
    for index in range(min(number, _MOST_SEGMENTS)):
        at = start + index * size
        if at + struct.calcsize(segment) > len(head):
            return None
        fields = struct.unpack_from(segment, head, at)
        if fields[0] == _PT_INTERP:
            path = head[fields[offset_at] : fields[offset_at] + fields[size_at]]
            return path.split(b"\0")[0].decode(errors="replace") or None
    return None


def _mach_o(head: bytes, order: str) -> tuple[str, str, str | None] | None:
    processor, _, kind = struct.unpack_from(f"{order}III", head, 4)
    name = _MACH_O_PROCESSORS.get(processor)
    return ("darwin", name, None) if name and kind in _MACH_O_TYPES else None


def _universal(head: bytes) -> tuple[str, str, str | None] | None:
    (number,) = struct.unpack_from(">I", head, 4)
    if not 0 < number <= _MOST_ARCHITECTURES:
        return None
    processors = [struct.unpack_from(">I", head, 8 + 20 * index)[0] for index in range(number)]
    names = sorted(_MACH_O_PROCESSORS[processor] for processor in processors if processor in _MACH_O_PROCESSORS)
    return ("darwin", "+".join(names), None) if names else None


def _pe(head: bytes) -> tuple[str, str, str | None] | None:
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[start : start + 4] != b"PE\0\0":
        return None
    name = _PE_PROCESSORS.get(struct.unpack_from("<H", head, start + 4)[0])
    return ("windows", name, None) if name else None
