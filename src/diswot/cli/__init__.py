"""The command line: one module for each command.

Each command is a module, and imports what it needs when it runs, so that `--help` is quick. What a
user's options make impossible is a `UserError` wherever it is found; `main` prints it as one line.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from diswot.cli.compare import compare
from diswot.cli.distill import distill
from diswot.cli.doctor import doctor
from diswot.cli.evaluate import evaluate
from diswot.cli.export import export
from diswot.cli.help import Command
from diswot.cli.names import list_names
from diswot.cli.rank import rank
from diswot.cli.report import report
from diswot.cli.score import score
from diswot.cli.search import search
from diswot.errors import ExportFailed, SearchFailed, UserError, out_of_memory
from diswot.runs.folder import Stopped
from diswot.utils.repeats import repeats_counted

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the student network that a teacher can teach best, without training; then teach it.",
)
app.command("search", cls=Command)(search)
app.command("score", cls=Command)(score)
app.command("distill", cls=Command)(distill)
app.command("doctor", cls=Command)(doctor)
app.command("evaluate", cls=Command)(evaluate)
app.command("rank", cls=Command)(rank)
app.command("report", cls=Command)(report)
app.command("compare", cls=Command)(compare)
app.command("export", cls=Command)(export)
app.command("list", cls=Command)(list_names)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from diswot import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


_INTERRUPTED = 130  # status of a command that was stopped by Ctrl-C
# Typer brings its own copy of Click and does not export the base class of Click's errors.
_USAGE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit with its status.

    The status is 0 for success, 1 for a failure, 2 for a mistake of the user and 130 for Ctrl-C. A
    closed standard output ends the command with 1 and without a message.
    """
    try:
        command = typer.main.get_command(app)
        with repeats_counted():
            status = command.main(arguments, prog_name="diswot", standalone_mode=False)
        if status == _INTERRUPTED:  # typer returns it in place of the exception
            raise KeyboardInterrupt
    except UserError as error:
        _leave(str(error), 2)
    except _USAGE as error:
        _leave(error.format_message(), 2)
    except (SearchFailed, ExportFailed, FloatingPointError) as error:
        _leave(str(error), 1)
    except OSError as error:
        _leave(f"{error.strerror or error}: {error.filename or 'an unnamed file'}", 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        _leave("out of memory; ask for smaller images or a smaller batch", 1)
    except Stopped as stop:
        _leave(str(stop), _INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        _leave("stopped", _INTERRUPTED)


def _leave(message: str, status: int) -> None:
    print(f"diswot: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
