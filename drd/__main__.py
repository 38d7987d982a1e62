"""``python -m drd``."""

import sys

from drd.cli.main import main

sys.exit(main())
