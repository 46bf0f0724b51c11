"""Runs the command `scripts/private-docker`."""

import sys

from engines.private import main

sys.exit(main())
