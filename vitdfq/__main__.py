"""The command `vitdfq` and `python -m vitdfq`. Imports take seconds, so signals are handled before them."""

from vitdfq.runtime import interrupt


def main() -> None:
    """Run the command line."""
    with interrupt.handled():
        from vitdfq import cli

        cli.main()


if __name__ == "__main__":
    main()
