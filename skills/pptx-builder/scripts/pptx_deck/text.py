"""Puts text into placeholders and shapes: inline bold, runs split by script, right-to-left paragraphs, chosen sizes.

Emoji and CJK get runs of their own, because LibreOffice drops CJK characters that share a run with an emoji.
"""

import re
import unicodedata

from pptx.oxml import parse_xml
from pptx.oxml.ns import nsdecls, qn

from .measure import EMOJI

BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
CJK = re.compile(r"[\u2e80-\u30ff\u3100-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+")
SMALLEST_PT = 12
SUB_SCALE = 0.86


def clean(text):
    """One line of text: every run of white space becomes one space."""
    return " ".join(str(text).split())


def plain(text):
    """The text without its bold marks."""
    return BOLD.sub(r"\1", clean(text))


def sub_size(size):
    """The size of second-level bullets under this size."""
    return max(14, round(size * SUB_SCALE)) if size >= 14 else size


def is_rtl(text):
    """Whether the first strong character reads from right to left."""
    for char in text:
        direction = unicodedata.bidirectional(char)
        if direction in ("R", "AL"):
            return True
        if direction == "L":
            return False
    return False


def pieces(text):
    """The text as (characters, bold, kind) where kind is latin, cjk or emoji."""
    at, marked = 0, []
    for match in BOLD.finditer(text):
        marked.append((text[at : match.start()], False))
        marked.append((match.group(1), True))
        at = match.end()
    marked.append((text[at:], False))
    for part, bold in marked:
        yield from ((chars, bold, kind) for chars, kind in _by_script(part))


def _by_script(text):
    kind, start = None, 0
    for index, char in enumerate(text):
        now = "emoji" if EMOJI.match(char) else "cjk" if CJK.match(char) else "latin"
        if now == "latin" and char == " " and kind is not None:
            continue  # a space stays with what stands before it
        if kind is not None and now != kind:
            yield text[start:index], kind
            start = index
        kind = now
    if text:
        yield text[start:], kind or "latin"


def write(shape, paragraphs, language, size=None):
    """Replaces the shape's text.

    A paragraph is a dict: text, and as needed level, size (its own), bold, colour (a scheme colour's name), align, before_pt.
    `size` None leaves what the placeholder inherits.
    """
    body = shape.text_frame._txBody
    for old in body.findall(qn("a:p")):
        body.remove(old)
    mixed = any(is_rtl(p["text"]) for p in paragraphs)
    for paragraph in paragraphs:
        body.append(_paragraph(paragraph, language, size, mixed))


def _paragraph(paragraph, language, size, mixed):
    text = clean(paragraph["text"])
    element = parse_xml(f"<a:p {nsdecls('a')}><a:pPr/></a:p>")
    properties = element.find(qn("a:pPr"))
    if paragraph.get("level"):
        properties.set("lvl", str(paragraph["level"]))
    if is_rtl(text):
        properties.set("algn", "r")
        properties.set("rtl", "1")
    elif paragraph.get("align"):
        properties.set("algn", paragraph["align"])
    elif mixed:  # LibreOffice lets a direction run on into the next paragraph
        properties.set("algn", "l")
        properties.set("rtl", "0")
    if "before_pt" in paragraph:
        spacing = parse_xml(f'<a:spcBef {nsdecls("a")}><a:spcPts val="{int(paragraph["before_pt"] * 100)}"/></a:spcBef>')
        properties.append(spacing)
    own = paragraph.get("size") or (sub_size(size) if size and paragraph.get("level") else size)
    for chars, bold, kind in pieces(text):
        element.append(_run(chars, bold or paragraph.get("bold"), kind, language, own, paragraph.get("colour")))
    return element


def _run(chars, bold, kind, language, size, colour):
    run = parse_xml(f"<a:r {nsdecls('a')}><a:rPr/><a:t/></a:r>")
    properties = run.find(qn("a:rPr"))
    properties.set("lang", _language(chars, kind, language))
    if size:
        properties.set("sz", str(int(size * 100)))
    if bold:
        properties.set("b", "1")
    if colour:
        properties.append(parse_xml(f'<a:solidFill {nsdecls("a")}><a:schemeClr val="{colour}"/></a:solidFill>'))
    run.find(qn("a:t")).text = chars
    return run


def _language(chars, kind, language):
    if kind != "cjk" or language.split("-")[0].lower() in ("ja", "ko", "zh"):
        return language
    if any("\u3040" <= c <= "\u30ff" for c in chars):
        return "ja-JP"
    return "ko-KR" if any("\uac00" <= c <= "\ud7af" for c in chars) else "zh-CN"


def mark_decorative(shape):
    """Tells screen readers to pass over a shape that is only decoration."""
    properties = shape._element.xpath(".//p:cNvPr")[0]
    properties.append(
        parse_xml(
            f'<a:extLst {nsdecls("a")}><a:ext uri="{{C183D7F6-B498-43B3-948B-1728B52AA6E4}}">'
            '<adec:decorative xmlns:adec="http://schemas.microsoft.com/office/drawing/2017/decorative" val="1"/></a:ext></a:extLst>'
        )
    )


def set_alt(shape, text):
    """The text that a screen reader says for a picture, chart or table."""
    shape._element.xpath(".//p:cNvPr")[0].set("descr", clean(text))
