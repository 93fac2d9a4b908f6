"""`python -m aevb`: the command line, as torchrun starts it."""

from aevb.apps.cli import main

main()
