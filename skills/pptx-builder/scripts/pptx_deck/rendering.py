"""Draws a deck with LibreOffice, in a profile of its own that is gone afterwards, so that two runs never meet.

LibreOffice exits 0 on some failures; only a PDF that appeared counts.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .report import MissingTool, SpecError, problem

RENDER_S_MAX = 240
# LibreOffice 7.4 leaves colour emoji out of a PDF; without that font it takes Symbola's outlines instead.
FONTS_WITHOUT_COLOUR = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><include ignore_missing="yes">/etc/fonts/fonts.conf</include>
<selectfont><rejectfont><pattern><patelt name="family"><string>Noto Color Emoji</string></patelt></pattern></rejectfont></selectfont>
</fontconfig>
"""


def program():
    """LibreOffice's command, or None."""
    return shutil.which("soffice") or shutil.which("libreoffice")


@contextlib.contextmanager
def pdf_of(file):
    """A PDF of the deck, while the context lasts."""
    soffice = program()
    if soffice is None:
        raise MissingTool("LibreOffice (soffice)")
    with tempfile.TemporaryDirectory(prefix="deck-render-") as folder:
        folder = Path(folder)
        shutil.copyfile(file, folder / "deck.pptx")
        (folder / "fonts.conf").write_text(FONTS_WITHOUT_COLOUR)
        env = {**os.environ, "FONTCONFIG_FILE": str(folder / "fonts.conf"), "HOME": str(folder)}
        command = [
            soffice, f"-env:UserInstallation=file://{folder}/profile", "--headless", "--norestore", "--nolockcheck",
            "--convert-to", "pdf:impress_pdf_Export", "--outdir", str(folder), str(folder / "deck.pptx"),
        ]
        said = _run(command, env)
        if not (folder / "deck.pdf").is_file():
            raise SpecError([problem("$", "render", f"LibreOffice made no PDF of {file}: {said[-400:]}", "Is it a valid .pptx? Build it again.")])
        yield folder / "deck.pdf"


def _run(command, env):
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=RENDER_S_MAX)
        return output.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        return f"it did not end within {RENDER_S_MAX} s"
    finally:  # soffice is a script that starts the real program
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def to_png(file, folder, width):
    """One PNG a slide; returns their paths."""
    import pypdfium2

    if not file.is_file():
        raise SpecError([problem("$", "missing", f"no file at {file}", "Build the deck first.")])
    if not 160 <= width <= 4096:
        raise SpecError([problem("$", "bad_value", f"--width is {width}", "Choose a width between 160 and 4096 pixels.")])
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    with pdf_of(file) as pdf, contextlib.closing(pypdfium2.PdfDocument(pdf)) as document:
        for index, page in enumerate(document, start=1):
            image = folder.absolute() / f"slide-{index:02d}.png"
            drawn = page.render(scale=width / page.get_width()).to_pil()
            drawn.crop((0, 0, width, round(width * page.get_height() / page.get_width()))).save(image)  # pdfium rounds sizes up
            images.append(image)
    return images
