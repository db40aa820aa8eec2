"""`python -m segundo`: the same as `segundo`."""

from segundo.cli import main

main()
