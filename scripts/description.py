"""Renders the description of the wheel in a folder as package indexes do, and fails if it has links to files.

It is part of `scripts/tox -e package`.
"""

from __future__ import annotations

import email
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

from readme_renderer.markdown import render

_HEADING = "#user-content-"
"""The beginning of links that the renderer adds to headings."""


class Addresses(HTMLParser):
    """Collects the addresses of links and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read the attributes of a tag."""
        self.found += [str(value) for name, value in attrs if name in ("href", "src") and tag in ("a", "img")]


def description(folder: Path) -> str:
    """Return the description in the metadata of the only wheel in a folder."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return str(email.message_from_bytes(archive.read(metadata)).get_payload())


def problems(text: str) -> list[str]:
    """Return what an index cannot show: links and pictures without a server, and diagrams."""
    html = render(text)
    if html is None:
        return ["the description cannot be rendered"]
    addresses = Addresses()
    addresses.feed(html)
    links = [address for address in addresses.found if not address.startswith(_HEADING)]
    return [
        *(f"link without a server: {address}" for address in links if not address.startswith("https://")),
        *(["a diagram in mermaid"] if "```mermaid" in text else []),
        *(["no link at all: this is not the README"] if not links else []),
    ]


if __name__ == "__main__":
    sys.exit("\n".join(problems(description(Path(sys.argv[1])))) or 0)
