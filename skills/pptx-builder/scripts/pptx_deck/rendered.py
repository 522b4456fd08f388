"""Where each character landed: a PDF's characters matched with the paragraphs of the shapes that they belong to.

Characters, not words, because LibreOffice breaks long words inside. Spaces, hyphens and emoji are left out of the
comparison: PDF text has them in other places, or not at all.
"""

import collections
import contextlib
import ctypes
import unicodedata

from . import checks, inherit, rendering, theme
from .measure import EMOJI
from .report import problem

SLACK_PT = 4.0
IGNORED = set("-\u2010\u2011\u00ad\u0002\ufffe\u200b\u200e\u200f")


class Glyph:
    """One character on the page: its place in points from the top left, and its colour."""

    __slots__ = ("box", "rgb", "used")

    def __init__(self, box, rgb):
        self.box, self.rgb, self.used = box, rgb, False


def run(file, items, slide_size, fonts, problems, warnings):
    """Adds what the rendering shows; marks the items that it could place."""
    import pypdfium2

    with rendering.pdf_of(file) as pdf, contextlib.closing(pypdfium2.PdfDocument(pdf)) as document:
        if len(document) != len(items):
            fix = "Build the deck again."
            problems.append(problem("$", "render", f"{len(items)} slides rendered as {len(document)} pages", fix))
            return
        for page, shown in zip(document, items):
            scale = page.get_width() / slide_size[0] / 72
            text, glyphs = _glyphs(page, scale)
            picture = page.render(scale=1 / scale).to_pil().convert("RGB")
            for item in shown:
                _place(item, text, glyphs, picture, slide_size, fonts, problems, warnings)


def normal(text):
    """The characters that are compared."""
    text = EMOJI.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return "".join(c for c in text if not c.isspace() and c not in IGNORED)


def _glyphs(page, scale):
    import pypdfium2.raw as raw

    textpage = page.get_textpage()
    height = page.get_height()
    chars, glyphs = [], []
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    for index in range(textpage.count_chars()):
        code = raw.FPDFText_GetUnicode(textpage.raw, index)
        if code == 0 or 0xD800 <= code <= 0xDFFF:
            continue
        expanded = normal(chr(code))
        if not expanded:
            continue
        left, bottom, right, top = textpage.get_charbox(index)
        raw.FPDFText_GetFillColor(textpage.raw, index, red, green, blue, alpha)
        box = (left / scale, (height - top) / scale, right / scale, (height - bottom) / scale)
        glyph = Glyph(box, f"{red.value:02X}{green.value:02X}{blue.value:02X}")
        for char in expanded:
            chars.append(char)
            glyphs.append(glyph)
    textpage.close()
    return "".join(chars), glyphs


def _place(item, text, glyphs, picture, slide_size, fonts, problems, warnings):
    found, wanted = [], 0
    for paragraph, said in item.paragraphs():
        target = normal(said)
        if not target:
            continue
        wanted += 1
        run_of = _nearest(item, target, text, glyphs) or _nearest(item, target[::-1], text, glyphs)
        if run_of is None:
            warnings.append({"slide": item.number, "path": item.path, "kind": "glyph", "detail": f"not found in the rendering: {said[:60]!r}"})
            continue
        found += run_of
        _check_contrast(item, paragraph, run_of, picture, problems)
    if not wanted or not found:
        return
    item.matched = True
    left, top = min(g.box[0] for g in found), min(g.box[1] for g in found)
    right, bottom = max(g.box[2] for g in found), max(g.box[3] for g in found)
    page = (slide_size[0] * 72, slide_size[1] * 72)
    beyond = max(-left, -top, right - page[0], bottom - page[1])
    share = checks.fitting_share(item, fonts, item.box[3] * 72 / max(bottom - top, 1.0))
    if beyond > 0.5:
        problems.append(item.too_long("off_slide", f"text ends {beyond / 72:.2f} in beyond the slide's edge", share))
        return
    x, y, w, h = (v * 72 for v in item.box)
    overs = {"below": bottom - y - h, "above": y - top, "right of": right - x - w, "left of": x - left}
    side, most = max(overs.items(), key=lambda pair: pair[1])
    if most > SLACK_PT:
        problems.append(item.too_long("overflow", f"text ends {most / 72:.2f} in {side} its box", share))


def _nearest(item, target, text, glyphs):
    """The unused occurrence of the text that lies nearest to its shape."""
    x, y, w, h = (v * 72 for v in item.box)
    best, at = None, text.find(target)
    while at >= 0:
        run_of = glyphs[at : at + len(target)]
        if not any(g.used for g in run_of):
            first = run_of[0].box
            away = max(x - first[0], first[0] - x - w, 0) + max(y - first[1], first[1] - y - h, 0)
            if best is None or away < best[0]:
                best = (away, run_of)
        at = text.find(target, at + 1)
    if best is None:
        return None
    for glyph in best[1]:
        glyph.used = True
    return best[1]


def _check_contrast(item, paragraph, run_of, picture, problems):
    left, top = min(g.box[0] for g in run_of), min(g.box[1] for g in run_of)
    right, bottom = max(g.box[2] for g in run_of), max(g.box[3] for g in run_of)
    area = (max(0, int(left) - 2), max(0, int(top) - 2), min(picture.width, int(right) + 3), min(picture.height, int(bottom) + 3))
    if area[2] <= area[0] or area[3] <= area[1]:
        return
    ground = "{:02X}{:02X}{:02X}".format(*collections.Counter(picture.crop(area).getdata()).most_common(1)[0][0])
    styles = inherit.styles_of(item.shape, item.slide, 0)
    looks = [inherit.run_look(r, styles, ("Calibri", "Calibri")) for r in paragraph.xpath("a:r|a:fld")]
    large = bool(looks) and all(size >= 18 or (bold and size >= 14) for size, bold, _ in looks)
    for rgb, count in collections.Counter(g.rgb for g in run_of).items():
        ratio = theme.contrast(rgb, ground)
        if count >= 2 and ratio < (3.0 if large else 4.5) - 0.05:
            detail = f"#{rgb} on #{ground} has a contrast of {ratio:.1f}; {3.0 if large else 4.5} is needed"
            problems.append(item.problem("contrast", detail, "Use another theme or a darker \"accent\"."))
            return
