"""How much room a text takes, measured with the font that the renderer will use.

The result is an estimate on the safe side: kerning is ignored and lines are broken a little early. It never opens a
font by name through the system, only the files in FONT_FOLDERS, so that the same spec gives the same deck.
"""

import functools
import re
import struct
import unicodedata
from pathlib import Path

from .theme import SUBSTITUTES

FONT_FOLDERS = ("/usr/share/fonts/truetype/crosextra", "/usr/share/fonts/truetype/liberation", "/usr/share/fonts/truetype/dejavu")
UNITS = 1000
# A renderer may set a line slightly wider than the sum of its advances.
WIDTH_SAFETY = 0.985
# Noto Sans CJK is 1.448 em high; a line that holds one such character is that high.
CJK_LINE = 1.45
EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\ufe0f\u200d\u20e3\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]+"
)


class Face:
    """One font file's advances, in thousandths of the size."""

    def __init__(self, family, bold):
        self.font = self._open(SUBSTITUTES.get(family, family), bold)
        self.advances = {}
        self.line = 1.22 if self.font is None else _line_height(Path(self.font.path).read_bytes())

    @staticmethod
    def _open(name, bold):
        from PIL import ImageFont

        for folder in FONT_FOLDERS:
            file = Path(folder) / f"{name}-{'Bold' if bold else 'Regular'}.ttf"
            if file.is_file():
                return ImageFont.truetype(str(file), UNITS, layout_engine=ImageFont.Layout.BASIC)
        return None

    def advance(self, char):
        """Width of one character, in em."""
        width = self.advances.get(char)
        if width is None:
            width = self.advances[char] = self._measure(char)
        return width

    def _measure(self, char):
        if unicodedata.combining(char) or char in "\u200d\ufe0f\u200b":
            return 0.0
        if EMOJI.match(char):
            return 1.3
        if is_wide(char):
            return 1.0
        if self.font is None:
            return 0.56
        return self.font.getlength(char) / UNITS


def _line_height(file):
    """Line height in em by the font's own tables: the larger of Windows' and the Mac's, as renderers take either."""
    tables = {}
    for index in range(struct.unpack_from(">H", file, 4)[0]):
        tag, _, offset, _ = struct.unpack_from(">4sIII", file, 12 + 16 * index)
        tables[tag] = offset
    em = struct.unpack_from(">H", file, tables[b"head"] + 18)[0]
    ascent, descent, gap = struct.unpack_from(">hhh", file, tables[b"hhea"] + 4)
    windows = sum(struct.unpack_from(">HH", file, tables[b"OS/2"] + 74))
    return max(windows, ascent - descent + gap) / em


@functools.lru_cache(maxsize=16)
def face(family, bold):
    """The opened face, once a process."""
    return Face(family, bold)


def is_wide(char):
    """Whether the character takes a full square, as Han, kana and hangul do."""
    return unicodedata.east_asian_width(char) in "WF"


def width_in(text, family, size_pt, bold=False):
    """Width of the text on one line, in inches."""
    measured = face(family, bold)
    return sum(measured.advance(c) for c in text) * size_pt / 72


def wrap(text, family, size_pt, bold, room_in):
    """The number of lines that the text takes in a column of that width."""
    measured = face(family, bold)
    room = room_in * WIDTH_SAFETY * 72 / size_pt
    lines, used = 1, 0.0
    for word in _words(text):
        if word == "\n":
            lines, used = lines + 1, 0.0
            continue
        wide = sum(measured.advance(c) for c in word)
        visible = sum(measured.advance(c) for c in word.rstrip(" "))
        if used and used + visible > room:
            lines, used = lines + 1, 0.0
        while visible > room:  # a word longer than the line is broken inside
            fitting = 0.0
            for count, char in enumerate(word):
                if fitting + measured.advance(char) > room and count:
                    break
                fitting += measured.advance(char)
            word = word[count:]
            lines, used = lines + 1, 0.0
            wide = sum(measured.advance(c) for c in word)
            visible = wide
        used += wide
    return lines


def _words(text):
    """Pieces between which a line may break: after spaces and hyphens, around wide characters."""
    return re.findall(r"\n|[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef\u3000-\u30ff]\s*|[^\s\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef-]*-?[ \t]*", text)


def line_em(text, family, bold):
    """Height of a line of this text, in em."""
    base = face(family, bold).line
    if any(is_wide(c) for c in text):
        return max(base, CJK_LINE)
    if EMOJI.search(text):
        return max(base, 1.3)
    return base


def height_in(paragraphs, family, size_pt, room_in, spacing=1.0):
    """Height of paragraphs in a column.

    A paragraph is a dict: text, and as needed bold, scale (of the size), indent_in, before_pt.
    """
    total = 0.0
    for index, paragraph in enumerate(paragraphs):
        text, bold = paragraph["text"], paragraph.get("bold", False)
        size = round(size_pt * paragraph.get("scale", 1.0))
        lines = wrap(text, family, size, bold, room_in - paragraph.get("indent_in", 0.0))
        total += lines * size * line_em(text, family, bold) * spacing / 72
        if index:
            total += paragraph.get("before_pt", 0.0) / 72
    return total


def fit(paragraphs, family, sizes, room_in, height, spacing=1.0):
    """The first of the sizes at which the paragraphs fit, else the last one; and whether they fit."""
    for size in sizes:
        if height_in(paragraphs, family, size, room_in, spacing) <= height:
            return size, True
    return sizes[-1], False
