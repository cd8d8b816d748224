"""`python -m polyad`, where the command is not on the path."""

import sys

from polyad.cli import main

sys.exit(main())
