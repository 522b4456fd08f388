"""Runs the real command line in its own process, as an agent does, and reads the files that it makes."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SKILL = Path(__file__).resolve().parents[1]
DECK = SKILL / "scripts" / "deck.py"
sys.path.insert(0, str(SKILL / "scripts"))


class DeckTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="deck-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_deck(self, *arguments, env=None):
        """Exit code and report of a command; the report is all of stdout, and nothing is on stderr."""
        done = subprocess.run(
            [sys.executable, str(DECK), *map(str, arguments)],
            cwd=self.folder, env={**os.environ, **(env or {})}, capture_output=True, stdin=subprocess.DEVNULL, timeout=300, check=False,
        )
        self.assertEqual(done.stderr.decode(), "")
        return done.returncode, json.loads(done.stdout)

    def write(self, spec, name="deck.json"):
        """Puts a spec into the folder."""
        path = self.folder / name
        path.write_text(spec if isinstance(spec, str) else json.dumps(spec), "utf-8")
        return path

    def build(self, spec, name="deck.pptx"):
        """Builds a spec that must be good; returns the file and the report."""
        path = spec if isinstance(spec, Path) else self.write(spec)
        code, report = self.run_deck("build", path, "-o", self.folder / name)
        self.assertEqual((code, report["problems"]), (0, []))
        return self.folder / name, report

    def check(self, file, *arguments):
        """Exit code and report of a check."""
        return self.run_deck("check", file, *arguments)


def bullets(title="A title that says the point", count=3, **more):
    """A bullets slide."""
    return {"layout": "bullets", "title": title, "bullets": [f"Bullet number {i} of the list" for i in range(1, count + 1)], **more}


def deck(*slides, **more):
    """A deck around these slides."""
    return {"title": "A deck for a test", "author": "Tests", "slides": list(slides), **more}
