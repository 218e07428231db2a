"""``python -m probeline.config FILE...`` checks files; ``--write`` writes the reference."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from probeline.config import load
from probeline.config.reference import write
from probeline.errors import ProbelineError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 1 if a configuration has mistakes."""
    parser = argparse.ArgumentParser(prog="python -m probeline.config", description=__doc__)
    parser.add_argument("files", nargs="*", help="configuration files to check")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write workflow/schemas/config.schema.json and docs/config.md",
    )
    parser.add_argument("--root", default=".", help="the repository (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.files and not options.write:
        parser.error("give files to check, or --write")
    if options.write:
        for path in write(Path(options.root)):
            print(path)
    mistakes = 0
    for file in options.files:
        try:
            load(file)
            print(f"{file}: right")
        except ProbelineError as error:
            print(error, file=sys.stderr)
            mistakes += 1
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
