"""Command line: ``python -m tsvae demo`` shows the library at work on real data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tsvae
from tsvae.demo import cli


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line with its subcommands."""
    parser = argparse.ArgumentParser(
        prog="python -m tsvae",
        description="Structured variational autoencoders for time series.",
    )
    parser.add_argument("--version", action="version", version=f"tsvae {tsvae.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    cli.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str or None, default=None
        Words of the command line; None reads ``sys.argv``.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error that the user can mend (an option, a missing extra, a
        folder that cannot be written).
    """
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
