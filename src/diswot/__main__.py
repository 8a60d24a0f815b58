"""`python -m diswot`."""

from diswot.cli import main

if __name__ == "__main__":
    main()
