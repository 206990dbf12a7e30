"""`python -m olm`: the same program as the `olm` command."""

from __future__ import annotations

import sys

from olm.cli.main import main

sys.exit(main())
