"""``python -m metalab``: the command line."""

import sys

from metalab.cli import main

sys.exit(main())
