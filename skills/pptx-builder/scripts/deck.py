#!/usr/bin/env python3
"""Builds, checks and renders PowerPoint decks. See SKILL.md beside this folder; `deck.py --help` lists the commands.

Prints one JSON report on stdout, asks nothing, opens no connection, and leaves nothing behind but the file it was asked for.
"""

import argparse
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from pptx_deck import report  # noqa: E402  (the path comes first)
from pptx_deck.report import EXIT_BAD_SPEC, EXIT_MISSING_TOOL, MissingTool, SpecError, problem  # noqa: E402

EXAMPLE = "example:\n  python3 deck.py build deck.json -o output/deck.pptx\n  python3 deck.py check output/deck.pptx\n"


class Parser(argparse.ArgumentParser):
    """Argument errors become reports, too."""

    def error(self, message):
        raise SpecError([problem("$", "bad_value", f"arguments: {message}", f"Usage: {' '.join(self.format_usage().split()[1:])}")])


def arguments():
    """The command line."""
    parser = Parser(prog="deck.py", description="Builds, checks and renders PowerPoint decks.", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    build = commands.add_parser("build", help="make a .pptx from a JSON spec or a Markdown outline")
    build.add_argument("spec", help="deck.json or outline.md")
    build.add_argument("-o", "--output", required=True, help="the .pptx to write")
    check = commands.add_parser("check", help="look for overflow, overlap, weak contrast and the like in a .pptx")
    check.add_argument("file", help="the .pptx to look at")
    check.add_argument("--no-render", action="store_true", help="do not render with LibreOffice")
    check.add_argument("--json", action="store_true", help="accepted for symmetry; the report is always JSON")
    render = commands.add_parser("render", help="make a PNG of each slide")
    render.add_argument("file", help="the .pptx to draw")
    render.add_argument("--png-dir", required=True, help="folder for slide-01.png and so on")
    render.add_argument("--width", type=int, default=1280, help="pixels across (default 1280)")
    commands.add_parser("schema", help="print the JSON Schema of the spec")
    return parser


def main():
    """Runs one command and returns its exit code."""
    command = next((a for a in sys.argv[1:] if not a.startswith("-")), "")
    try:
        options = arguments().parse_args()
        from pptx_deck import commands

        return getattr(commands, options.command)(options)
    except SpecError as error:
        report.emit(sys.stdout, ok=False, command=command, warnings=[], problems=error.problems)
        return EXIT_BAD_SPEC
    except (MissingTool, ImportError) as error:
        detail = f"not on this machine: {error}"
        fix = "Install the runtime's packages and programs; the spec needs no change."
        report.emit(sys.stdout, ok=False, command=command, warnings=[], problems=[problem("$", "render", detail, fix)])
        return EXIT_MISSING_TOOL
    except OSError as error:
        fix = "Choose a path that exists and may be written."
        report.emit(sys.stdout, ok=False, command=command, warnings=[], problems=[problem("$", "file", str(error), fix)])
        return EXIT_BAD_SPEC


if __name__ == "__main__":
    sys.exit(main())
