"""`python -m diswot`."""

from diswot.cli import main

main()
