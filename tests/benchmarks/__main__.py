"""`python -m benchmarks`, with tests/ on the path."""

import sys

from benchmarks.run import main

sys.exit(main())
