"""`python -m intentstream` is the command line `intentstream`."""

from intentstream.cli.main import main

main()
