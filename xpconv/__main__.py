"""``python -m xpconv``."""

import sys

from xpconv.cli import main

sys.exit(main())
