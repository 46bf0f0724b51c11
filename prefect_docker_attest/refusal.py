"""The error for a build that needs buildx, if this package cannot take it over.

Such a build never uses the classic builder: a refused build can be retried, a bad image cannot be unshipped. This
module imports only the standard library.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def build_error() -> type[Exception]:
    """Return the class ``BuildError`` that Prefect has now. A reload of Prefect's module makes a new class."""
    error: type[Exception] = getattr(sys.modules.get("prefect.utilities.dockerutils"), "BuildError", RuntimeError)
    return error


def refusal(reason: object, settings: Sequence[str]) -> Exception:
    """Return the error to raise.

    Args:
        reason: why this package cannot take over the build
        settings: variables of the settings that require buildx; empty if an option of the image requires it
    """
    if settings:
        cause = f"{' and '.join(settings)} {'are' if len(settings) > 1 else 'is'} set"
    else:
        cause = "The image has buildx-only options"
    return build_error()(
        f"{cause}, but prefect-docker-attest cannot take over this build: {reason}.\n"
        "TIP Run `pip install --upgrade --force-reinstall prefect-docker-attest`. Or run `docker buildx build "
        "--provenance=false --sbom=false --push .`, and deploy with build=False and push=False."
    )
