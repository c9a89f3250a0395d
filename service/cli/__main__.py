"""`python -m service.cli`: how torchrun starts the processes of a training."""

from __future__ import annotations

import sys

from service.cli import main

if __name__ == "__main__":
    sys.exit(main())
