"""`python -m intentstream` is the command line `intentstream`."""

import sys
from pathlib import Path

# `-m` puts the working directory first, and a folder `features` in it would hide ours.
if sys.path[:1] in ([str(Path.cwd())], [""]):
    del sys.path[0]

from intentstream.cli.main import main

main()
