"""`python -m gatecrash`."""

from gatecrash.cli import main

main()
