"""``python -m streamsave.cli`` is ``streamsave``."""

import sys

from .main import main

sys.exit(main())
