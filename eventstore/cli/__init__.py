"""The command line ``eventstore``: one module a group of commands. See docs/cli.md."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit."""
    try:
        from eventstore.cli.app import app  # noqa: PLC0415 - typer and rich are optional
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(
            "eventstore: the command line needs typer and rich:"
            " pip install 'eventstore-toolkit[cli]'"
        )
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="eventstore")
