"""The metadata about an image that buildx writes to ``--metadata-file``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


@dataclass(frozen=True)
class Metadata:
    """The metadata of one build.

    Attributes:
        digest: digest of the manifest or index; ``""`` if the builder does not report it
        config_digest: digest of the config; ``""`` if the builder does not report it
        media_type: media type of the manifest or index; ``""`` with the graphdriver store
        document: the whole JSON object
    """

    digest: str = ""
    config_digest: str = ""
    media_type: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the content of the file.

        Raises:
            ValueError: the text is not such a JSON object
        """
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError(f"a JSON object is expected, not {type(document).__name__}")  # noqa: TRY004 as for others
        descriptor = document.get("containerimage.descriptor", {})
        values = {
            "digest": document.get("containerimage.digest", ""),
            "config_digest": document.get("containerimage.config.digest", ""),
            "media_type": descriptor.get("mediaType", "") if isinstance(descriptor, dict) else None,
        }
        if wrong := next((name for name, value in values.items() if not isinstance(value, str)), ""):
            raise ValueError(f"its {wrong} is not a string")
        return cls(**values, document=document)

    @property
    def image_ids(self) -> list[str]:
        """The digests that can be the image's id in the engine. The likelier one is first.

        The image store and the builder's driver determine the id. ``--iidfile`` of buildx before 0.36 is wrong for an
        image without attestations in the containerd image store (docker/buildx, build/build.go).
        """
        return list(dict.fromkeys(filter(None, (self.digest, self.config_digest))))
