"""Opens a finished .pptx again and says what a viewer would stumble over. It never changes the file.

First the geometry, from the file alone; then, where LibreOffice is there, where each character really landed
(rendered.py). Estimates give way to the rendering.
"""

import re
import zipfile

from . import inherit, measure, rendering
from .report import SpecError, problem

BODY_PT_MIN, FOOTNOTE_PT_MIN = 12, 9
SLACK_IN = 0.03
PROBLEMS_MAX = 60
PLACEHOLDER_TEXT = re.compile(r"lorem ipsum|\bx{4,}\b|\bTODO\b|\bTBD\b|click to (add|edit)|\[insert|<insert|your (title|text) here", re.IGNORECASE)
FIELD_NAME = re.compile(
    r"^(title|subtitle|kicker|source|items|bullets|columns\[\d\]\.(heading|bullets)|chart|chart\.unit|table|takeaway|kpis\[\d\]|"
    r"steps\[\d\](\.label)?|image|quote|by|contact)$"
)
TEXT_FIELDS = ("title", "subtitle", "kicker", "source", "takeaway", "quote", "contact", "heading", "unit", "label")


class Item:
    """One shape with its place in inches and its paragraphs."""

    def __init__(self, number, slide, shape, box, path):
        self.number, self.slide, self.shape, self.box, self.path = number, slide, shape, box, path
        self.name = shape.name
        self.matched = False

    @property
    def is_graphic(self):
        return self.shape.has_chart or getattr(self.shape, "has_table", False) or self.shape.shape_type == 13 or self.is_picture

    @property
    def is_picture(self):
        return self.shape._element.tag.endswith("}pic")

    def paragraphs(self):
        """(a:p element, text) of the shape or of a table's cells."""
        if getattr(self.shape, "has_table", False) and self.shape.has_table:
            frames = [cell.text_frame for row in self.shape.table.rows for cell in row.cells]
        elif self.shape.has_text_frame:
            frames = [self.shape.text_frame]
        else:
            frames = []
        # Fields (slide numbers) are text, too, though python-pptx's runs leave them out.
        return [(p._p, "".join(t.text or "" for t in p._p.xpath(".//a:t"))) for f in frames for p in f.paragraphs]

    def text(self):
        """All its text, a paragraph a line."""
        return "\n".join(text for _, text in self.paragraphs())

    def problem(self, kind, detail, fix, **more):
        """A problem of this shape."""
        return problem(self.path, kind, detail, fix, slide=self.number, shape=self.name, **more)

    def too_long(self, kind, detail, share):
        """A problem whose cure is less text; `share` of it has room."""
        have = len(self.text().replace("\n", ""))
        room = max(1, int(have * min(share, 0.97)))
        if self.path and self.path.rsplit(".", 1)[-1] in TEXT_FIELDS:
            return self.problem(kind, detail, f"Shorten {self.path} to at most {room} characters (it has {have}).", max_chars=room)
        lines = [p for p, text in self.paragraphs() if text.strip() and not _level(p)]
        if self.path and self.path.endswith(("bullets", "items")) and len(lines) > 1:
            keep = max(1, int(len(lines) * min(share, 0.99)))
            fix = f"Keep at most {keep} of the {len(lines)} entries of {self.path} on this slide, or shorten them."
            return self.problem(kind, detail, fix, max_items=keep)
        where = self.path or f"the text of \"{self.name}\" on slide {self.number}"
        return self.problem(kind, detail, f"Shorten the texts of {where} from {have} to about {room} characters in all, or move a part to another slide.")


def run(file, render):
    """Everything that is wrong, as {"outline", "problems", "warnings", "rendered"}."""
    prs = _open(file)
    slide_size = (prs.slide_width / 914400, prs.slide_height / 914400)
    fonts = inherit.theme_fonts(prs)
    problems, warnings, outline, items = [], [], [], []
    if not (prs.core_properties.title or "").strip():
        problems.append(problem("$.title", "metadata", "the document has no title", "Set \"title\" in the spec."))
    for number, slide in enumerate(prs.slides, start=1):
        path = slide._element.cSld.get("name") or ""
        path = path if path.startswith("$.slides[") else None
        shown = _items(number, slide, path)
        items.append(shown)
        title = _check_title(number, path, shown, problems)
        outline.append({"slide": number, "layout": slide.slide_layout.name, "path": path, "title": title})
        _check_shapes(shown, slide_size, fonts, problems)
        _check_overlap(shown, problems)
    if not outline:
        problems.append(problem("$.slides", "missing", "the deck has no slide", "Add slides."))
    rendered = render and rendering.program() is not None
    if rendered and outline:
        from . import rendered as rendered_checks

        rendered_checks.run(file, items, slide_size, fonts, problems, warnings)
    elif render:
        warnings.append({"kind": "not_rendered", "detail": "LibreOffice is not here; only the file's geometry was checked"})
    for shown in items:
        for item in shown:
            if not item.matched:
                _estimate_overflow(item, fonts, problems)
    problems.sort(key=lambda p: p.get("slide", 0))
    return {"outline": outline, "problems": problems[:PROBLEMS_MAX], "warnings": warnings, "rendered": rendered}


def _open(file):
    from pptx import Presentation
    from pptx.exc import PackageNotFoundError

    fix = "Give the path of a .pptx file; build it first."
    if not file.is_file():
        raise SpecError([problem("$", "missing", f"no file at {file}", fix)])
    try:
        with zipfile.ZipFile(file) as package:
            broken = package.testzip()
        if broken:
            raise SpecError([problem("$", "file", f"{file}: the entry {broken} is damaged", fix)])
        prs = Presentation(str(file))
        list(prs.slides)
        return prs
    except (zipfile.BadZipFile, PackageNotFoundError, KeyError, ValueError, SyntaxError, AttributeError) as error:
        raise SpecError([problem("$", "file", f"{file} is no readable .pptx: {error}", fix)]) from error


def _items(number, slide, path):
    return [
        Item(number, slide, shape, box, _field_path(path, shape.name))
        for shape, box in _flat(slide.shapes, (0.0, 0.0, 1.0, 1.0))
    ]


def _field_path(path, name):
    if name in ("author", "footer"):
        return f"$.{name}"
    if path is None:
        return None
    return f"{path}.{name}" if FIELD_NAME.match(name) else path


def _flat(shapes, frame):
    """All shapes that are not groups, with their boxes in inches on the slide."""
    for shape in shapes:
        x, y, w, h = (value or 0 for value in (shape.left, shape.top, shape.width, shape.height))
        box = (frame[0] + x * frame[2] / 914400, frame[1] + y * frame[3] / 914400, w * frame[2] / 914400, h * frame[3] / 914400)
        if shape._element.tag.endswith("}grpSp"):
            inner = shape._element.xpath("p:grpSpPr/a:xfrm")
            child = inner[0].xpath("a:chOff|a:chExt") if inner else []
            if len(child) == 2:
                sx = frame[2] * w / (int(child[1].get("cx")) or 1)
                sy = frame[3] * h / (int(child[1].get("cy")) or 1)
                origin = (box[0] - int(child[0].get("x")) * sx / 914400, box[1] - int(child[0].get("y")) * sy / 914400)
                yield from _flat(shape.shapes, (*origin, sx, sy))
        else:
            yield shape, box


def _check_title(number, path, items, problems):
    titles = [i for i in items if i.shape.is_placeholder and i.shape.placeholder_format.type in (1, 3)]
    said = [i.text().strip() for i in titles if i.text().strip()]
    where = f"{path}.title" if path else None
    if not said:
        problems.append(problem(where, "missing_title", "the slide has no title", "Give the slide a title.", slide=number, shape="title"))
    elif len(said) > 1:
        problems.append(problem(where, "missing_title", f"the slide has {len(said)} titles", "Keep one title placeholder.", slide=number, shape="title"))
    return said[0] if said else ""


def _is_decorative(item):
    return bool(item.shape._element.xpath(".//*[local-name()='decorative'][@val='1']"))


def _check_shapes(items, slide_size, fonts, problems):
    for item in items:
        x, y, w, h = item.box
        beyond = max(-x, -y, x + w - slide_size[0], y + h - slide_size[1])
        if beyond > SLACK_IN and not _is_decorative(item):
            detail = f"the shape reaches {beyond:.2f} in beyond the slide's edge"
            problems.append(item.problem("off_slide", detail, "Move it inside the slide, or give it less content."))
        text = item.text()
        found = PLACEHOLDER_TEXT.search(text)
        if found:
            problems.append(item.problem("placeholder_text", f"it still says \"{found.group()}\"", f"Replace it at {item.path or 'the shape'} by real text."))
        elif item.shape.is_placeholder and not text.strip() and not item.is_graphic:
            problems.append(item.problem("placeholder_text", "an empty placeholder", "Fill it or delete it."))
        if item.is_graphic and not _is_decorative(item) and not (item.shape._element.xpath(".//p:cNvPr/@descr") or [""])[0].strip():
            problems.append(item.problem("alt_text", "no alternative text", f"Add \"alt\" to {item.path or 'the shape'}."))
        if item.shape.has_chart:
            _check_chart(item, problems)
        _check_sizes(item, slide_size, fonts, problems)


def _check_sizes(item, slide_size, fonts, problems):
    is_note = item.box[1] >= slide_size[1] * 0.85 or (item.shape.is_placeholder and item.shape.placeholder_format.type in (13, 15, 16))
    least = FOOTNOTE_PT_MIN if is_note else BODY_PT_MIN
    smallest = None
    for paragraph, text in item.paragraphs():
        if text.strip():
            styles = inherit.styles_of(item.shape, item.slide, _level(paragraph))
            sizes = [inherit.run_look(r, styles, fonts)[0] for r in paragraph.xpath("a:r|a:fld")]
            smallest = min([*sizes, smallest or 999])
    if smallest and smallest < least:
        problems.append(item.problem("font_size", f"text of {smallest:g} pt; at least {least} pt can be read", "Use less text, so that a larger size fits."))


def _level(paragraph):
    properties = paragraph.find("{http://schemas.openxmlformats.org/drawingml/2006/main}pPr")
    return int(properties.get("lvl", "0")) if properties is not None else 0


def _check_chart(item, problems):
    chart = item.shape.chart
    shown = [[v for v in s.values] for plot in chart.plots for s in plot.series]
    part = chart.part.chart_workbook.xlsx_part
    if part is None:
        problems.append(item.problem("chart_data", "the chart has no data workbook", "Build the chart again."))
        return
    stored = _workbook_columns(part.blob)
    if stored is not None and shown and [list(map(_as_float, s)) for s in shown] != [c[: len(shown[0])] for c in stored[: len(shown)]]:
        problems.append(item.problem("chart_data", "the chart shows other numbers than its workbook holds", "Build the chart again."))


def _as_float(value):
    return None if value is None else float(value)


def _workbook_columns(blob):
    import io

    try:
        import openpyxl
    except ImportError:
        return None
    sheet = openpyxl.load_workbook(io.BytesIO(blob), read_only=True, data_only=True).worksheets[0]
    rows = [list(row) for row in sheet.iter_rows(min_row=2, values_only=True)]
    width = max((len(r) for r in rows), default=1)
    return [[_as_float(r[c]) if c < len(r) and isinstance(r[c], (int, float, type(None))) else None for r in rows] for c in range(1, width)]


def _check_overlap(items, problems):
    solid = [
        i for i in items
        if not _is_decorative(i) and (i.is_graphic or i.text().strip()) and i.box[2] > 0 and i.box[3] > 0
        and not (i.shape.is_placeholder and i.shape.placeholder_format.type in (13, 15, 16))
    ]
    for at, one in enumerate(solid):
        for other in solid[at + 1 :]:
            wide = min(one.box[0] + one.box[2], other.box[0] + other.box[2]) - max(one.box[0], other.box[0])
            high = min(one.box[1] + one.box[3], other.box[1] + other.box[3]) - max(one.box[1], other.box[1])
            if wide > 0.05 and high > 0.05 and not _holds(one.box, other.box) and not _holds(other.box, one.box):
                detail = f"\"{one.name}\" and \"{other.name}\" overlap by {wide:.2f} x {high:.2f} in"
                problems.append(other.problem("overlap", detail, "Use less content in one of the two, or another layout."))


def _holds(outer, inner):
    return (
        outer[0] - 0.02 <= inner[0] and outer[1] - 0.02 <= inner[1]
        and inner[0] + inner[2] <= outer[0] + outer[2] + 0.02 and inner[1] + inner[3] <= outer[1] + outer[3] + 0.02
    )


def _estimate_overflow(item, fonts, problems):
    """For shapes that no rendering has placed: measured height against the box."""
    if getattr(item.shape, "has_table", False) and item.shape.has_table:
        return
    if not item.text().strip() or item.shape._element.xpath(".//a:bodyPr/a:spAutoFit|.//a:bodyPr/a:normAutofit"):
        return
    if item.shape._element.xpath(".//a:xfrm[@rot][@rot!='0']") or inherit.body_property(item.shape, item.slide, "wrap", "square") == "none":
        return
    room = _room(item)
    if room[0] <= 0.05:
        return
    need = sum(_paragraph_height(item, fonts, index, p, text, room[0]) for index, (p, text) in enumerate(item.paragraphs()))
    if need > room[1] + SLACK_IN + 0.02 * room[1]:
        detail = f"the text needs about {need:.2f} in, its box has {room[1]:.2f} in"
        problems.append(item.too_long("overflow", detail, fitting_share(item, fonts, room[1] / need)))


def fitting_share(item, fonts, ratio):
    """How much of the text has room: exact for one paragraph, which fills whole lines, and a ratio of heights otherwise."""
    said = [(p, text) for p, text in item.paragraphs() if text.strip()]
    room = _room(item)
    if len(said) != 1 or room[0] <= 0.05:
        return ratio
    paragraph, text = said[0]
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _paragraph_height(item, fonts, 0, paragraph, text[:middle], room[0]) <= room[1]:
            low = middle
        else:
            high = middle - 1
    return max(0.05, low / len(text) - 0.03) if low < len(text) else ratio


def _room(item):
    sides = (("l", 91440), ("r", 91440), ("t", 45720), ("b", 45720))
    inset = [int(inherit.body_property(item.shape, item.slide, f"{side}Ins", default)) / 914400 for side, default in sides]
    return item.box[2] - inset[0] - inset[1], item.box[3] - inset[2] - inset[3]


def _paragraph_height(item, fonts, index, paragraph, text, room):
    styles = inherit.styles_of(item.shape, item.slide, _level(paragraph))
    spacing, before, left = inherit.paragraph_look(paragraph, styles)
    looks = [inherit.run_look(r, styles, fonts) for r in paragraph.xpath("a:r|a:fld")] or [(18.0, False, fonts[1])]
    size, _, family = max(looks)
    bold = all(look[1] for look in looks)
    height = measure.height_in([{"text": text, "bold": bold, "indent_in": left}], family, size, room, spacing)
    return height + (before / 72 if index else 0)
