"""Adds an import hook that loads prefect_docker_attest on the first ``import prefect``.

Python calls `add_import_hook` at every start: through ``prefect_docker_attest.pth`` up to 3.14, through
``prefect_docker_attest.start`` (PEP 829) from 3.15 on. So this module imports only sys, prints nothing and raises
nothing. The package's own start-up code is in ``prefect_docker_attest/startup.py``. CONTRIBUTING.md shows how much
time this module takes.
"""

import sys


class PrefectDockerAttestSentinel:
    """A finder that loads the package when Prefect is imported. It finds no modules itself.

    The package replaces it in ``sys.meta_path`` with its own finder.
    """

    _failed = False

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG003
        # Another finder before this one may have found Prefect. In this case the next look-up loads the package.
        if fullname == "prefect" or ("prefect" in sys.modules and fullname != "prefect_docker_attest"):
            cls._load()

    @classmethod
    def _load(cls) -> None:
        if not cls._failed:
            try:
                import prefect_docker_attest  # noqa: F401
            except Exception:  # A partly removed package must not break `import prefect`.
                cls._failed = True


def add_import_hook() -> None:
    """Add the finder at the start of ``sys.meta_path``, unless the finder or the package is loaded already."""
    # In a virtual environment Python can read the start-up files twice.
    if PrefectDockerAttestSentinel not in sys.meta_path and "prefect_docker_attest" not in sys.modules:
        sys.meta_path.insert(0, PrefectDockerAttestSentinel)
