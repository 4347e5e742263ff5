"""Runs Feast's own universal store tests, from a checkout of Feast, on our two stores."""

import sys

from intentstream.extras import tell

sys.excepthook = tell
