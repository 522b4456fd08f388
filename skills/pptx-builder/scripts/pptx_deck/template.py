"""Makes the empty 16:9 presentation: one master, thirteen layouts, real placeholders, no trace of a stock template.

All positions live here, in inches; layouts of slides only fill placeholders, or place shapes inside the content area. Text
on layouts is limited to the quotation mark of the quote layout.
"""

from xml.sax.saxutils import quoteattr

from pptx import Presentation
from pptx.opc.constants import CONTENT_TYPE as CT
from pptx.opc.constants import RELATIONSHIP_TYPE as RT
from pptx.opc.packuri import PackURI
from pptx.oxml import parse_xml
from pptx.parts.slide import SlideLayoutPart
from pptx.util import Emu, Inches

from .theme import theme_xml

WIDTH, HEIGHT = 13.333, 7.5
MARGIN = 0.75
INNER = WIDTH - 2 * MARGIN
TOP, BOTTOM = 1.85, 6.5
CELL = HEIGHT / 4  # the pattern of quarter circles on dark slides

# Placeholder numbers, the same in every layout.
BODY, BODY_2 = 1, 2
KICKER, HEAD, HEAD_2, CHART, TABLE, PICTURE, TAKEAWAY, SOURCE, SAMPLE, META, UNIT, FOOTER, NUMBER = range(10, 23)

TITLE_BOX = (MARGIN, 0.64, INNER, 0.98)
SOURCE_BOX = (MARGIN, 6.58, INNER, 0.24)
BODY_BOX = (MARGIN, TOP, INNER, BOTTOM - TOP)
BULLETS_BOX = (MARGIN, TOP, 10.9, BOTTOM - TOP)
CARD = ((INNER - 0.35) / 2, BOTTOM - TOP)
CARD_PAD = 0.35
CHART_BOX = (MARGIN, 2.2, INNER, BOTTOM - 2.2)
CHART_LEFT_BOX = (MARGIN, 2.2, 7.95, BOTTOM - 2.2)
PANEL_BOX = (9.05, TOP, WIDTH - MARGIN - 9.05, BOTTOM - TOP)
TAKEAWAY_BOX = (PANEL_BOX[0] + 0.4, PANEL_BOX[1] + 0.35, PANEL_BOX[2] - 0.75, PANEL_BOX[3] - 0.7)
STRIP_BOX = (MARGIN + 0.28, 5.62, INNER - 0.28, 0.78)
SAMPLE_BOX = (WIDTH - MARGIN - 3.55, 1.8, 3.55, 0.3)
AGENDA_BOX = (5.65, 0.75, WIDTH - MARGIN - 5.65, 6.0)
AGENDA_TITLE_BOX = (MARGIN, 0.75, 3.5, 1.8)
COVER_TITLE_BOX = (MARGIN, 1.75, 8.2, 2.3)
COVER_SUB_BOX = (MARGIN, 4.25, 8.2, 0.95)
COVER_META_BOX = (MARGIN, 6.3, 8.2, 0.4)
SECTION_TITLE_BOX = (MARGIN, 3.05, 9.6, 1.6)
SECTION_SUB_BOX = (MARGIN, 4.85, 9.6, 0.9)
QUOTE_BOX = (1.85, 2.4, 9.9, 3.1)
QUOTE_BY_BOX = (1.85, 5.6, 9.9, 0.85)
CLOSING_TITLE_BOX = (MARGIN, 0.95, 8.2, 1.5)
CLOSING_SUB_BOX = (MARGIN, 2.5, 8.2, 0.6)
CLOSING_BODY_BOX = (MARGIN, 3.2, 8.2, 2.75)
CLOSING_META_BOX = (MARGIN, 6.3, 8.2, 0.4)
IMAGE_BOX = (MARGIN, TOP, 6.9, BOTTOM - TOP)
IMAGE_TEXT_BOX = (MARGIN + 6.9 + 0.45, TOP, INNER - 6.9 - 0.45, BOTTOM - TOP)
IMAGE_WIDE_BOX = BODY_BOX

NS = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
)
MUTED = '<a:schemeClr val="tx1"><a:lumMod val="80000"/><a:lumOff val="20000"/></a:schemeClr>'
# LibreOffice applies a footer's colour transform twice, once from the master and once from the layout.
FOOTER_COLOUR = '<a:schemeClr val="tx1"><a:lumMod val="92000"/><a:lumOff val="8000"/></a:schemeClr>'
DARK_MUTED = '<a:schemeClr val="bg1"><a:lumMod val="85000"/></a:schemeClr>'


def scheme(name):
    """A theme colour as XML."""
    return f'<a:schemeClr val="{name}"/>'


def emu(inches):
    """Inches as the integer that the file holds."""
    return int(round(inches * 914400))


def xfrm(box, flip=""):
    """Position and size as XML."""
    x, y, w, h = (emu(v) for v in box)
    return f'<a:xfrm{flip}><a:off x="{x}" y="{y}"/><a:ext cx="{w}" cy="{h}"/></a:xfrm>'


class Shapes:
    """Collects the shape tree of a master or layout, counting ids."""

    def __init__(self):
        self.parts, self.next_id = [], 2

    def add(self, name, body, placeholder=""):
        head = f'<p:cNvPr id="{self.next_id}" name={quoteattr(name)}/><p:cNvSpPr>{"<a:spLocks noGrp=%s/>" % quoteattr("1") if placeholder else ""}</p:cNvSpPr>'
        self.parts.append(f"<p:sp><p:nvSpPr>{head}<p:nvPr>{placeholder}</p:nvPr></p:nvSpPr>{body}</p:sp>")
        self.next_id += 1

    def rectangle(self, name, box, fill):
        self.add(
            name,
            f'<p:spPr>{xfrm(box)}<a:prstGeom prst="rect"><a:avLst/></a:prstGeom><a:solidFill>{fill}</a:solidFill><a:ln><a:noFill/></a:ln></p:spPr>',
        )

    def quarter(self, column, row, corner, fill, left):
        """A quarter circle filling one cell, its centre in the corner: bl, br, tl or tr."""
        flip = (' flipH="1"' if corner[1] == "r" else "") + (' flipV="1"' if corner[0] == "t" else "")
        path = (
            '<a:path w="100" h="100"><a:moveTo><a:pt x="0" y="0"/></a:moveTo><a:arcTo wR="100" hR="100" stAng="16200000" '
            'swAng="5400000"/><a:lnTo><a:pt x="0" y="100"/></a:lnTo><a:close/></a:path>'
        )
        box = (left + column * CELL, row * CELL, CELL, CELL)
        self.add(
            "Pattern",
            f"<p:spPr>{xfrm(box, flip)}<a:custGeom><a:avLst/><a:gdLst/><a:ahLst/><a:cxnLst/>"
            f'<a:rect l="0" t="0" r="r" b="b"/><a:pathLst>{path}</a:pathLst></a:custGeom>'
            f"<a:solidFill>{fill}</a:solidFill><a:ln><a:noFill/></a:ln></p:spPr>",
        )

    def placeholder(self, kind, idx, name, box, size, colour, *, bold=False, anchor="t", bullets=None, align="l", caps=False,
                    prompt="", major=False, fill="", line_spacing=None, inset=0.0, italic=False):
        """One placeholder: kind is the ph type, bullets None (no bullets), "bullet" or "number"."""
        marks = {
            None: '<a:buNone/>',
            "bullet": "",
            "number": f'<a:buClr>{scheme("accent1")}</a:buClr><a:buFont typeface="+mj-lt"/><a:buAutoNum type="arabicPlain"/>',
        }[bullets]
        indent = {None: 'marL="0" indent="0"', "bullet": "", "number": 'marL="640080" indent="-640080"'}[bullets]
        spacing = f'<a:lnSpc><a:spcPct val="{line_spacing}000"/></a:lnSpc>' if line_spacing else ""
        before = '<a:spcBef><a:spcPts val="0"/></a:spcBef>' if bullets is None else ""
        style = (
            f'<a:lvl1pPr {indent} algn="{align}">{spacing}{before}{marks}'
            f'<a:defRPr sz="{int(size * 100)}" b="{int(bold)}" i="{int(italic)}"{" cap=%s spc=%s" % (quoteattr("all"), quoteattr("120")) if caps else ""}>'
            f"<a:solidFill>{colour}</a:solidFill>"
            f'{"<a:latin typeface=%s/><a:ea typeface=%s/>" % (quoteattr("+mj-lt"), quoteattr("+mj-ea")) if major else ""}</a:defRPr></a:lvl1pPr>'
        )
        if bullets == "bullet" and colour != scheme("tx1"):  # on a dark ground
            style = style.replace('<a:defRPr', f'<a:buClr>{scheme("accent6")}</a:buClr><a:defRPr', 1)
            style += f'<a:lvl2pPr><a:defRPr><a:solidFill>{colour}</a:solidFill></a:defRPr></a:lvl2pPr>'
        insets = " ".join(f'{side}Ins="{emu(inset)}"' for side in ("l", "t", "r", "b"))
        attrs = f'type="{kind}"' + (f' idx="{idx}"' if idx is not None else "") + (' sz="quarter"' if kind in ("ftr", "sldNum") else "")
        text = '<a:fld id="{B6F15528-21DE-4FAA-801E-634DDDAF4B2B}" type="slidenum"><a:rPr/><a:t>‹#›</a:t></a:fld>' if kind == "sldNum" else f"<a:r><a:rPr/><a:t>{prompt or name}</a:t></a:r>"
        self.add(
            name,
            f'<p:spPr>{xfrm(box)}<a:prstGeom prst="rect"><a:avLst/></a:prstGeom>{f"<a:solidFill>{fill}</a:solidFill>" if fill else ""}</p:spPr>'
            f'<p:txBody><a:bodyPr vert="horz" wrap="square" {insets} anchor="{anchor}"><a:noAutofit/></a:bodyPr><a:lstStyle>{style}</a:lstStyle>'
            f"<a:p>{text}</a:p></p:txBody>",
            f"<p:ph {attrs}/>",
        )

    def tree(self):
        """The finished p:spTree."""
        group = '<p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr><a:xfrm><a:off x="0" y="0"/><a:ext cx="0" cy="0"/><a:chOff x="0" y="0"/><a:chExt cx="0" cy="0"/></a:xfrm></p:grpSpPr>'
        return f"<p:spTree>{group}{''.join(self.parts)}</p:spTree>"


def _background(colour):
    return f"<p:bg><p:bgPr><a:solidFill>{scheme(colour)}</a:solidFill><a:effectLst/></p:bgPr></p:bg>"


def _pattern(shapes, columns):
    """The quarter circles at the right edge; `columns` counts from the right."""
    left = WIDTH - columns * CELL
    tint = '<a:schemeClr val="bg1"><a:alpha val="9000"/></a:schemeClr>'
    cells = {
        2: [(0, 0, "br", "accent1"), (1, 0, "bl", "tint"), (0, 1, "tl", "tint"), (1, 1, "tr", "accent2"),
            (0, 2, "tr", "accent6"), (1, 2, "br", "accent1"), (0, 3, "br", "accent3"), (1, 3, "tl", "tint")],
        1: [(0, 0, "bl", "accent1"), (0, 1, "tr", "tint"), (0, 2, "br", "accent2"), (0, 3, "tl", "accent6")],
    }[columns]
    for column, row, corner, fill in cells:
        shapes.quarter(column, row, corner, tint if fill == "tint" else scheme(fill), left)


def _header(shapes):
    shapes.rectangle("Mark", (MARGIN, 0, 0.9, 0.1), scheme("accent1"))
    shapes.placeholder("body", KICKER, "Kicker", (MARGIN, 0.36, INNER, 0.26), 12, scheme("accent1"), bold=True, caps=True)
    shapes.placeholder("title", None, "Title", TITLE_BOX, 28, scheme("tx2"), bold=True, major=True, line_spacing=90)


def _footer(shapes, left=MARGIN, source=True):
    if source:
        shapes.placeholder("body", SOURCE, "Source", SOURCE_BOX, 10, MUTED)
    shapes.placeholder("ftr", FOOTER, "Footer", (left, 6.98, min(8.0, WIDTH - MARGIN - 1.4 - left), 0.24), 10, FOOTER_COLOUR)
    shapes.placeholder("sldNum", NUMBER, "Slide number", (WIDTH - MARGIN - 1.2, 6.98, 1.2, 0.24), 10, FOOTER_COLOUR, align="r")


def _sample(shapes, box=SAMPLE_BOX):
    fill = '<a:schemeClr val="accent2"><a:lumMod val="20000"/><a:lumOff val="80000"/></a:schemeClr>'
    shapes.placeholder("body", SAMPLE, "Sample notice", box, 12, scheme("tx1"), bold=True, anchor="ctr", align="ctr", fill=fill)


def _title(s):
    _pattern(s, 2)
    s.rectangle("Mark", (MARGIN, 0, 0.9, 0.1), scheme("accent6"))
    s.placeholder("ctrTitle", None, "Title", COVER_TITLE_BOX, 46, scheme("bg1"), bold=True, major=True, anchor="t", line_spacing=90)
    s.placeholder("subTitle", BODY, "Subtitle", COVER_SUB_BOX, 22, DARK_MUTED)
    s.placeholder("body", META, "Author and date", COVER_META_BOX, 14, scheme("accent6"), anchor="b")


def _agenda(s):
    s.rectangle("Panel", (0, 0, 4.75, HEIGHT), scheme("tx2"))
    tint = '<a:schemeClr val="bg1"><a:alpha val="9000"/></a:schemeClr>'
    s.quarter(0, 3, "bl", scheme("accent1"), 0)
    s.quarter(1, 3, "br", tint, 0)
    s.quarter(0, 2, "tl", tint, 0)
    s.rectangle("Mark", (MARGIN, 0, 0.9, 0.1), scheme("accent6"))
    s.placeholder("title", None, "Title", AGENDA_TITLE_BOX, 36, scheme("bg1"), bold=True, major=True, line_spacing=90)
    s.placeholder("body", BODY, "Items", AGENDA_BOX, 26, scheme("tx1"), bullets="number", anchor="ctr")
    _footer(s, left=AGENDA_BOX[0], source=False)


def _section(s):
    _pattern(s, 1)
    s.rectangle("Mark", (MARGIN, 0, 0.9, 0.1), scheme("accent6"))
    s.placeholder("body", KICKER, "Number", (MARGIN, 1.45, 4.0, 1.35), 80, scheme("accent6"), bold=True, major=True, anchor="b", line_spacing=90)
    s.placeholder("title", None, "Title", SECTION_TITLE_BOX, 40, scheme("bg1"), bold=True, major=True, line_spacing=90)
    s.placeholder("body", BODY, "Subtitle", SECTION_SUB_BOX, 20, DARK_MUTED)


def _bullets(s):
    left = WIDTH - CELL
    s.quarter(0, 2, "br", scheme("bg2"), left)
    s.quarter(0, 3, "tr", scheme("bg2"), left)
    _header(s)
    s.placeholder("body", BODY, "Text", BULLETS_BOX, 20, scheme("tx1"), bullets="bullet")
    _footer(s)


def _two_columns(s):
    _header(s)
    for index, (head, body) in enumerate(((HEAD, BODY), (HEAD_2, BODY_2))):
        x = MARGIN + index * (CARD[0] + 0.35)
        s.rectangle("Card", (x, TOP, *CARD), scheme("bg2"))
        s.rectangle("Card edge", (x, TOP, CARD[0], 0.07), scheme("accent1" if index else "accent2"))
        s.placeholder("body", head, f"Heading {index + 1}", column_head_box(index), 20, scheme("tx2"), bold=True)
        s.placeholder("body", body, f"Text {index + 1}", column_body_box(index), 18, scheme("tx1"), bullets="bullet")
    _footer(s)


def column_head_box(index):
    """Where a column's heading stands."""
    return (MARGIN + index * (CARD[0] + 0.35) + CARD_PAD, TOP + 0.32, CARD[0] - 2 * CARD_PAD, 0.42)


def column_body_box(index):
    """Where a column's bullets stand."""
    return (MARGIN + index * (CARD[0] + 0.35) + CARD_PAD, TOP + 0.95, CARD[0] - 2 * CARD_PAD, CARD[1] - 0.95 - 0.25)


def _panel(s):
    s.rectangle("Panel", PANEL_BOX, scheme("bg2"))
    s.rectangle("Panel edge", (PANEL_BOX[0], PANEL_BOX[1], 0.07, PANEL_BOX[3]), scheme("accent1"))
    s.placeholder("body", TAKEAWAY, "Takeaway", TAKEAWAY_BOX, 24, scheme("tx2"), bold=True, anchor="ctr")


def _chart_takeaway(s):
    _header(s)
    s.placeholder("body", UNIT, "Unit", (MARGIN, 1.82, 4.2, 0.28), 12, MUTED)
    s.placeholder("chart", CHART, "Chart", CHART_LEFT_BOX, 14, MUTED)
    _panel(s)
    _sample(s, (CHART_LEFT_BOX[0] + CHART_LEFT_BOX[2] - 3.55, 1.8, 3.55, 0.3))
    _footer(s)


def _chart(s):
    _header(s)
    s.placeholder("body", UNIT, "Unit", (MARGIN, 1.82, 6.0, 0.28), 12, MUTED)
    s.placeholder("chart", CHART, "Chart", CHART_BOX, 14, MUTED)
    _sample(s)
    _footer(s)


def _table(s):
    _header(s)
    s.placeholder("tbl", TABLE, "Table", BODY_BOX, 14, MUTED)
    s.placeholder("body", TAKEAWAY, "Takeaway", STRIP_BOX, 20, scheme("tx2"), bold=True, anchor="ctr")
    _sample(s)
    _footer(s)


def _title_only(s):
    _header(s)
    s.placeholder("body", TAKEAWAY, "Takeaway", STRIP_BOX, 20, scheme("tx2"), bold=True, anchor="ctr")
    _sample(s)
    _footer(s)


def _image_text(s):
    _header(s)
    s.placeholder("pic", PICTURE, "Picture", IMAGE_BOX, 14, MUTED)
    s.placeholder("body", BODY, "Text", IMAGE_TEXT_BOX, 20, scheme("tx1"), bullets="bullet", anchor="ctr")
    _footer(s)


def _image(s):
    _header(s)
    s.placeholder("pic", PICTURE, "Picture", IMAGE_WIDE_BOX, 14, MUTED)
    _footer(s)


def _quote(s):
    s.rectangle("Edge", (0, 0, 0.32, HEIGHT), scheme("accent1"))
    s.add(
        "Quotation mark",
        f'<p:spPr>{xfrm((1.75, 0.75, 1.3, 1.5))}<a:prstGeom prst="rect"><a:avLst/></a:prstGeom></p:spPr>'
        '<p:txBody><a:bodyPr lIns="0" tIns="0" rIns="0" bIns="0" wrap="none"><a:noAutofit/></a:bodyPr><a:lstStyle/><a:p><a:r>'
        f'<a:rPr sz="13800" b="1"><a:solidFill>{scheme("accent1")}</a:solidFill><a:latin typeface="Cambria"/></a:rPr><a:t>“</a:t></a:r></a:p></p:txBody>',
    )
    s.placeholder("title", None, "Quote", QUOTE_BOX, 44, scheme("tx2"), major=True, line_spacing=100)
    s.placeholder("body", META, "Who said it", QUOTE_BY_BOX, 18, scheme("tx1"))
    _footer(s, left=1.85, source=False)


def _closing(s):
    _pattern(s, 2)
    s.rectangle("Mark", (MARGIN, 0, 0.9, 0.1), scheme("accent6"))
    s.placeholder("title", None, "Title", CLOSING_TITLE_BOX, 40, scheme("bg1"), bold=True, major=True, anchor="b", line_spacing=90)
    s.placeholder("body", HEAD, "Subtitle", CLOSING_SUB_BOX, 20, DARK_MUTED)
    s.placeholder("body", BODY, "Next steps", CLOSING_BODY_BOX, 20, scheme("bg1"), bullets="bullet")
    s.placeholder("body", META, "Contact", CLOSING_META_BOX, 16, scheme("accent6"), anchor="b")


# Name, ground and drawing of each layout; `None` takes the master's white.
LAYOUTS = (
    ("Title", "tx2", _title), ("Agenda", None, _agenda), ("Section", "tx2", _section), ("Bullets", None, _bullets),
    ("Two columns", None, _two_columns), ("Chart and takeaway", None, _chart_takeaway), ("Chart", None, _chart),
    ("Table", None, _table), ("Title only", None, _title_only), ("Image and text", None, _image_text), ("Image", None, _image),
    ("Quote", "bg2", _quote), ("Closing", "tx2", _closing),
)


def new_presentation(theme, language):
    """An empty presentation in this theme."""
    prs = Presentation()
    prs.part._element.sldSz.attrib.pop("type", None)  # it said 4:3
    prs.slide_width, prs.slide_height = Emu(emu(WIDTH)), Inches(HEIGHT)
    master = prs.slide_master
    for layout in list(prs.slide_layouts):
        prs.slide_layouts.remove(layout)
    _write_master(master, language)
    theme_part = master.part.part_related_by(RT.THEME)
    theme_part._blob = theme_xml(theme, language).encode()
    id_list = master._element.get_or_add_sldLayoutIdLst()
    for number, (name, ground, draw) in enumerate(LAYOUTS, start=1):
        shapes = Shapes()
        draw(shapes)
        xml = (
            f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><p:sldLayout {NS} preserve="1" userDrawn="1">'
            f'<p:cSld name="{name}">{_background(ground) if ground else ""}{shapes.tree()}</p:cSld>'
            "<p:clrMapOvr><a:masterClrMapping/></p:clrMapOvr></p:sldLayout>"
        )
        part = SlideLayoutPart.load(PackURI(f"/ppt/slideLayouts/slideLayout{number}.xml"), CT.PML_SLIDE_LAYOUT, prs.part.package, xml.encode())
        part.relate_to(master.part, RT.SLIDE_MASTER)
        entry = id_list._add_sldLayoutId()
        entry.rId = master.part.relate_to(part, RT.SLIDE_LAYOUT)
        entry.set("id", str(2147483660 + number))
    _drop_leftovers(prs)
    return prs


def layout_named(prs, name):
    """The layout of that name."""
    return next(layout for layout in prs.slide_layouts if layout.name == name)


def _write_master(master, language):
    shapes = Shapes()
    shapes.placeholder("title", None, "Title", TITLE_BOX, 28, scheme("tx2"), bold=True, major=True, line_spacing=90)
    shapes.placeholder("body", BODY, "Text", BODY_BOX, 20, scheme("tx1"), bullets="bullet")
    _footer(shapes, source=False)
    fonts = '<a:latin typeface="+mn-lt"/><a:ea typeface="+mn-ea"/><a:cs typeface="+mn-cs"/>'
    levels = ""
    for level, (left, mark, colour, size) in enumerate(
        ((0.28, "•", scheme("accent1"), 20), (0.58, "–", MUTED, 17), (0.85, "–", MUTED, 16), (1.1, "–", MUTED, 16), (1.35, "–", MUTED, 16)), start=1
    ):
        before = 10 if level == 1 else 4
        levels += (
            f'<a:lvl{level}pPr marL="{emu(left)}" indent="{emu(-0.28)}" algn="l"><a:lnSpc><a:spcPct val="100000"/></a:lnSpc>'
            f'<a:spcBef><a:spcPts val="{before * 100}"/></a:spcBef><a:buClr>{colour}</a:buClr><a:buFont typeface="Arial"/><a:buChar char="{mark}"/>'
            f'<a:defRPr sz="{size * 100}" kern="1200"><a:solidFill>{scheme("tx1")}</a:solidFill>{fonts}</a:defRPr></a:lvl{level}pPr>'
        )
    major = fonts.replace("+mn", "+mj")
    title_style = (
        '<a:lvl1pPr algn="l"><a:lnSpc><a:spcPct val="90000"/></a:lnSpc><a:spcBef><a:spcPct val="0"/></a:spcBef><a:buNone/>'
        f'<a:defRPr sz="2800" b="1" kern="1200"><a:solidFill>{scheme("tx2")}</a:solidFill>{major}</a:defRPr></a:lvl1pPr>'
    )
    xml = (
        f'<p:sldMaster {NS}><p:cSld>{_background("bg1")}{shapes.tree()}</p:cSld>'
        '<p:clrMap bg1="lt1" tx1="dk1" bg2="lt2" tx2="dk2" accent1="accent1" accent2="accent2" accent3="accent3" accent4="accent4" '
        'accent5="accent5" accent6="accent6" hlink="hlink" folHlink="folHlink"/><p:sldLayoutIdLst/>'
        f"<p:txStyles><p:titleStyle>{title_style}</p:titleStyle><p:bodyStyle>{levels}</p:bodyStyle>"
        f'<p:otherStyle><a:defPPr><a:defRPr lang="{language}"/></a:defPPr><a:lvl1pPr algn="l"><a:defRPr sz="1800" kern="1200">'
        f'<a:solidFill>{scheme("tx1")}</a:solidFill>{fonts}</a:defRPr></a:lvl1pPr></p:otherStyle></p:txStyles></p:sldMaster>'
    )
    fresh = parse_xml(xml)
    old = master._element
    kept = old.get_or_add_sldLayoutIdLst()  # python-pptx's list of layouts holds on to this element
    for child in list(old):
        old.remove(child)
    for child in list(fresh):
        old.append(kept if child.tag == kept.tag else child)


def _drop_leftovers(prs):
    """The stock package's thumbnail, printer settings and view settings say nothing about this deck."""
    for owner in (prs.part, prs.part.package):
        rels = owner._rels
        for rid in [rid for rid, rel in rels.items() if rel.reltype in (RT.THUMBNAIL, RT.PRINTER_SETTINGS)]:
            rels.pop(rid)
    prs.part._element.attrib.pop("saveSubsetFonts", None)
