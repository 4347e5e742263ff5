"""`python -m intentstream` is the command line `intentstream`."""

import sys
from importlib import import_module
from pathlib import Path

# `-m` puts the working directory first, where a folder `features` would hide ours. What else is in
# it, such as a store of one's own, is found behind them.
if sys.path[:1] in ([str(Path.cwd())], [""]):
    here = sys.path.pop(0)
    for ours in ("features", "fm_intent", "stream"):
        import_module(ours)
    sys.path.append(here)

from intentstream.cli.main import main

main()
