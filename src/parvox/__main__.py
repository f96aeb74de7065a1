"""`python -m parvox`."""

import sys

from parvox.cli.main import main

sys.exit(main())
