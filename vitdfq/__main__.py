"""`python -m vitdfq`: what launchers of several processes call."""

from vitdfq.cli import main

if __name__ == "__main__":
    main()
