"""The command line. Commands import torch and the rest of the library when they run, so that `--help` is fast.

app, commands         commands.py
shared options        arguments.py
examples in --help    examples.py
printing              results.py
"""

from vitdfq.cli.commands import app
from vitdfq.cli.results import exit_with_error
from vitdfq.common.errors import VitdfqError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; every known error is one line on stderr and an exit code (see `vitdfq.common.errors`)."""
    try:
        app()
    except VitdfqError as error:
        exit_with_error(error, error.exit_code)
    except OSError as error:
        exit_with_error(f"{error.filename or 'file system'}: {error.strerror or error}", 1, error)
    except Exception as error:  # a bug, or a wrong argument without a check of its own
        exit_with_error(f"{type(error).__name__}: {error} (VITDFQ_DEBUG=1 shows the traceback)", 1, error)
