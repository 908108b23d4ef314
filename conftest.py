"""Lets tests import ``tests.…``: at the end of the path, so that the package under test is the
installed one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
