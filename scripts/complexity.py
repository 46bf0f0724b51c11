"""Fails if functions of the package are too complex: `scripts/tox -e lint`. radon itself has no exit code for this."""

from __future__ import annotations

import json
import subprocess
import sys

# The goal is C, and 8.
WORST_RANK = "E"
MOST_FUNCTIONS = 23  # of rank C or worse


def main() -> str | None:
    """Return the functions that are too complex, as text; `None` if there are none."""
    command = ["radon", "cc", "--json", "--min=C", "prefect_docker_attest"]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    functions = {
        f"{path}:{block['lineno']} {block['name']} {block['rank']} ({block['complexity']})": block["rank"]
        for path, blocks in answer.items()
        for block in blocks
        if block["type"] != "class"
    }
    too_complex = list(functions) if len(functions) > MOST_FUNCTIONS else []
    too_complex = too_complex or [function for function, rank in functions.items() if rank > WORST_RANK]
    return "\n".join(["ERROR These functions are too complex:", *too_complex]) if too_complex else None


if __name__ == "__main__":
    sys.exit(main())
