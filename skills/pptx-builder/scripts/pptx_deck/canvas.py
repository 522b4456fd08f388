"""What all layouts of slides share: new slides with their title, footer and number, text put at the largest size that fits,
lists measured and split, and plain shapes. Every shape is named after the field of the spec that it shows, so that a check of
the finished file can point back into the spec.
"""

from pptx.enum.text import MSO_AUTO_SIZE
from pptx.oxml import parse_xml
from pptx.oxml.ns import nsdecls
from pptx.util import Pt

from . import charts, measure, template, text
from .template import emu

TITLE_PT = (28, 26, 24)
QUOTE_PT = (44, 38, 34, 30, 26, 24, 22, 20)
BULLETS_MAX = 8


class Canvas:
    """One deck in the making, without its layouts."""

    def __init__(self, deck, theme, prs):
        self.deck, self.theme, self.prs = deck, theme, prs
        self.language = deck.get("language", "en-US")
        self.warnings = []
        self.sections = 0
        self.path = "$"
        self.spec = {}

    def _slide(self, layout):
        slide = self.prs.slides.add_slide(template.layout_named(self.prs, layout))
        slide._element.cSld.set("name", self.path)
        if "notes" in self.spec:
            notes = slide.notes_slide.notes_text_frame
            notes.text = self.spec["notes"].strip()
        return slide

    def _content_slide(self, layout, part=None):
        slide = self._slide(layout)
        suffix = f" ({part[0]}/{part[1]})" if part and part[1] > 1 else ""
        self._put(slide, 0, self.spec["title"] + suffix, "title", template.TITLE_BOX, TITLE_PT, bold=True, major=True, spacing=0.9)
        for idx, field in ((template.KICKER, "kicker"), (template.SOURCE, "source")):
            self._put_plain(slide, idx, self.spec.get(field), field)
        self._number(slide)
        return slide

    def _number(self, slide):
        """Footer and slide number are placeholders that python-pptx leaves out of new slides."""
        if "footer" in self.deck:
            self._copy_placeholder(slide, template.FOOTER, "ftr", "footer", f"<a:r><a:rPr lang=\"{self.language}\"/><a:t/></a:r>", text.clean(self.deck["footer"]))
        field = f'<a:fld id="{{B6F15528-21DE-4FAA-801E-634DDDAF4B2B}}" type="slidenum"><a:rPr lang="{self.language}"/><a:t/></a:fld>'
        self._copy_placeholder(slide, template.NUMBER, "sldNum", "slide number", field, str(len(self.prs.slides)))

    @staticmethod
    def _copy_placeholder(slide, idx, kind, name, inner, shown):
        number = max(int(i) for i in slide._element.xpath("//p:cNvPr/@id")) + 1
        element = parse_xml(
            f'<p:sp {nsdecls("p", "a")}><p:nvSpPr><p:cNvPr id="{number}" name="{name}"/><p:cNvSpPr><a:spLocks noGrp="1"/></p:cNvSpPr>'
            f'<p:nvPr><p:ph type="{kind}" idx="{idx}" sz="quarter"/></p:nvPr></p:nvSpPr><p:spPr/>'
            f"<p:txBody><a:bodyPr/><a:lstStyle/><a:p>{inner}</a:p></p:txBody></p:sp>"
        )
        element.xpath(".//a:t")[0].text = shown
        slide.shapes._spTree.append(element)

    def _placeholder(self, slide, idx):
        return next(p for p in slide.placeholders if p.placeholder_format.idx == idx)

    def _put_plain(self, slide, idx, value, name):
        """Text at the placeholder's own size, or no placeholder at all."""
        holder = self._placeholder(slide, idx)
        if value is None:
            holder._element.getparent().remove(holder._element)
            return None
        holder.name = name
        text.write(holder, [{"text": value}], self.language)
        return holder

    def _put(self, slide, idx, value, name, box, sizes, *, bold=False, major=False, spacing=1.0):
        """One paragraph at the largest of the sizes that fits."""
        holder = self._put_plain(slide, idx, value, name)
        if holder is None:
            return None
        family = self.theme.major if major else self.theme.minor
        paragraph = {"text": text.plain(value), "bold": bold}
        size, _ = measure.fit([paragraph], family, sizes, box[2], box[3], spacing)
        if size != sizes[0]:
            text.write(holder, [{"text": value}], self.language, size)
        return holder

    def _stack(self, title, value, title_box, sub, sub_box, gap=0.16, bold=True):
        """Moves the second text up to where the first one really ends."""
        size = title.text_frame.paragraphs[0].runs[0].font.size
        points = size.pt if size else self._inherited_pt(title)
        paragraph = {"text": text.plain(value), "bold": bold}
        used = measure.height_in([paragraph], self.theme.major, points, title_box[2]) + 0.12
        if sub is not None and used < title_box[3]:
            move(title, (*title_box[:3], used))
            move(sub, (sub_box[0], min(title_box[1] + used + gap, sub_box[1]), sub_box[2], sub_box[3]))

    def _balanced(self, value, box):
        """The narrowest box in which the text takes no more lines, so that no word stands alone on the last one."""
        value = text.plain(value)
        size, _ = measure.fit([{"text": value}], self.theme.major, QUOTE_PT, box[2], box[3])
        lines = measure.wrap(value, self.theme.major, size, False, box[2])
        width = box[2]
        while width > box[2] * 0.6 and measure.wrap(value, self.theme.major, size, False, width - 0.2) <= lines:
            width -= 0.2
        return (box[0], box[1], width, box[3])

    @staticmethod
    def _inherited_pt(holder):
        base = next(p for p in holder.part.slide.slide_layout.placeholders if p.placeholder_format.idx == holder.placeholder_format.idx)
        return int(base._element.xpath(".//a:lvl1pPr/a:defRPr/@sz")[0]) / 100

    # --- bullets: shown, measured, split

    def _bullet_paragraphs(self, bullets):
        paragraphs = []
        for bullet in bullets:
            item = {"text": bullet, "sub": []} if isinstance(bullet, str) else bullet
            paragraphs.append({"text": item["text"]})
            paragraphs += [{"text": sub, "level": 1} for sub in item.get("sub", [])]
        return paragraphs

    def _bullets_fit(self, bullets, sizes, box):
        paragraphs = []
        for p in self._bullet_paragraphs(bullets):
            level = p.get("level", 0)
            paragraphs.append({"text": text.plain(p["text"]), "level": level, "indent_in": 0.58 if level else 0.28, "before_pt": 4 if level else 10})
        for size in sizes:
            for p in paragraphs:
                p["scale"] = text.sub_size(size) / size if p["level"] else 1.0
            if measure.height_in(paragraphs, self.theme.minor, size, box[2]) <= box[3]:
                return size, True
        return sizes[-1], False

    def _put_bullets(self, slide, idx, bullets, name, box, sizes, inherited):
        """Bullets in the placeholder, with air between them where there is room."""
        holder = self._placeholder(slide, idx)
        holder.name = name
        size, _ = self._bullets_fit(bullets, sizes, box)
        paragraphs = self._bullet_paragraphs(bullets)
        text.write(holder, paragraphs, self.language, None if size == inherited else size)
        used = self._bullets_height(bullets, size, box)
        gaps = sum(1 for p in paragraphs[1:] if not p.get("level"))
        if gaps:
            extra = min(14.0, max(0.0, (box[3] * 0.8 - used) * 72 / gaps))
            for paragraph, spec in list(zip(holder.text_frame.paragraphs, paragraphs))[1:]:
                if extra >= 2 and not spec.get("level"):
                    paragraph.space_before = Pt(10 + int(extra))
        return holder

    def _bullets_height(self, bullets, size, box):
        paragraphs = [
            {"text": text.plain(p["text"]), "indent_in": 0.58 if p.get("level") else 0.28, "before_pt": 4 if p.get("level") else 10,
             "scale": text.sub_size(size) / size if p.get("level") else 1.0}
            for p in self._bullet_paragraphs(bullets)
        ]
        return measure.height_in(paragraphs, self.theme.minor, size, box[2])

    def _split_bullets(self, bullets, sizes, box):
        """The bullets in as few even parts as fit on a slide each; a bullet with too many sub-bullets is divided first."""
        items = []
        for bullet in bullets:
            items += self._divided(bullet, sizes, box)
        share = 1.0
        groups = self._filled(items, sizes, box, share)
        while share > 0.2 and len(tighter := self._filled(items, sizes, box, share - 0.1)) == len(groups):
            groups, share = tighter, share - 0.1
        return groups

    def _filled(self, items, sizes, box, share):
        """The items in order, each slide filled up to a share of its height (and of its number of bullets)."""
        room, most = (*box[:3], box[3] * share), max(1, round(BULLETS_MAX * share))
        groups = [[]]
        for item in items:
            if groups[-1] and (len(groups[-1]) >= most or not self._bullets_fit([*groups[-1], item], sizes[-2:], room)[1]):
                groups.append([])
            groups[-1].append(item)
        return groups

    def _divided(self, bullet, sizes, box):
        sub = [] if isinstance(bullet, str) else bullet.get("sub", [])
        if len(sub) < 2 or self._bullets_fit([bullet], sizes, box)[1]:
            return [bullet]
        half = (len(sub) + 1) // 2
        again = {"text": bullet["text"].rstrip(" …") + " …", "sub": sub[half:]}
        return self._divided({"text": bullet["text"], "sub": sub[:half]}, sizes, box) + self._divided(again, sizes, box)

    # --- shapes

    def _box(self, slide, box, name, fill=None, pad=0.0):
        shape = slide.shapes.add_textbox(*(emu(v) for v in box))
        shape.name = name
        frame = shape.text_frame
        frame.word_wrap = True
        frame.auto_size = MSO_AUTO_SIZE.NONE
        frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = emu(pad)
        if fill:
            shape.fill.solid()
            shape.fill.fore_color.theme_color = {"bg2": charts.MSO_THEME_COLOR.BACKGROUND_2}[fill]
        return shape

    def _decoration(self, slide, kind, box, colour):
        shape = slide.shapes.add_shape(kind, *(emu(v) for v in box))
        shape.name = "decoration"
        shape.fill.solid()
        shape.fill.fore_color.theme_color = {"accent1": charts.MSO_THEME_COLOR.ACCENT_1, "accent2": charts.MSO_THEME_COLOR.ACCENT_2}[colour]
        shape.line.fill.background()
        style = shape._element.find(f"{{{shape._element.nsmap['p']}}}style")
        if style is not None:  # the stock style brings a shadow
            shape._element.remove(style)
        text.mark_decorative(shape)


def even(items, parts):
    """The items in so many runs of nearly equal length."""
    base, more = divmod(len(items), parts)
    groups, at = [], 0
    for index in range(parts):
        step = base + (1 if index < more else 0)
        groups.append(items[at : at + step])
        at += step
    return [g for g in groups if g]


def move(shape, box):
    shape.left, shape.top, shape.width, shape.height = (emu(v) for v in box)
