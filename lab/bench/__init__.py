"""Benchmarks: each module measures one thing on real servers and writes `docs/results/`."""

import sys

from intentstream.extras import tell

# Before a benchmark's own imports: most of them need an extra.
sys.excepthook = tell
