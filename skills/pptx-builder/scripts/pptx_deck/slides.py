"""The layouts: each turns one slide of a checked spec into one or more slides, choosing sizes by measuring and splitting what is
too long for one.
"""

from pptx.enum.shapes import MSO_CONNECTOR, MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR
from pptx.oxml import parse_xml
from pptx.oxml.ns import nsdecls
from pptx.util import Pt

from . import charts, measure, template, text
from .canvas import QUOTE_PT, Canvas, even, move
from .template import emu

SAMPLE_TEXT = "Sample data: no figures were given"
AGENDA_TITLES = {"ja": "目次", "zh": "目录", "ko": "목차", "fr": "Sommaire", "ru": "Содержание", "uk": "Зміст", "pl": "Plan"}
BODY_PT = (24, 22, 20, 18)
COLUMN_PT = (22, 20, 18, 16)
TAKEAWAY_PT = (24, 22, 20, 18, 16, 14)
STRIP_PT = (20, 18, 16, 14)
BULLETS_WANTED, WORDS_WANTED, TITLE_CHARS_WANTED = 7, 60, 90
CONTENT_LAYOUTS = ("bullets", "two_column", "chart", "table", "kpi", "timeline", "image")


class Builder(Canvas):
    """Builds the slides of a deck, in order."""

    def build(self):
        """All slides, in order."""
        for index, spec in enumerate(self.deck["slides"]):
            self.path, self.spec = f"$.slides[{index}]", spec
            before = len(self.prs.slides)
            getattr(self, f"_{spec['layout']}")(spec)
            made = len(self.prs.slides) - before
            self._advise(spec, made, before + 1)

    def _title(self, spec):
        slide = self._slide("Title")
        value = spec.get("title", self.deck["title"])
        title = self._put(slide, 0, value, "title", template.COVER_TITLE_BOX, (48, 44, 40, 36, 32, 28), bold=True, major=True, spacing=0.9)
        under = spec.get("subtitle", self.deck.get("subtitle"))
        sub = self._put(slide, template.BODY, under, "subtitle", template.COVER_SUB_BOX, (22, 20, 18, 16))
        self._stack(title, value, template.COVER_TITLE_BOX, sub, template.COVER_SUB_BOX)
        meta = "  ·  ".join(text.clean(self.deck[k]) for k in ("author", "date") if k in self.deck)
        self._put_plain(slide, template.META, meta or None, "author")

    def _agenda(self, spec):
        items = spec.get("items") or self._agenda_items()
        sizes, box = (26, 24, 22, 20, 18), template.AGENDA_BOX

        def fits(group):
            paragraphs = [{"text": text.plain(i), "indent_in": 0.7, "before_pt": 20} for i in group]
            return measure.fit(paragraphs, self.theme.minor, sizes, box[2], box[3])

        groups = [items]
        for parts in range(1, len(items) + 1):
            groups = even(items, parts)
            if all(fits(g)[1] for g in groups):
                break
        done = 0
        for group in groups:
            slide = self._slide("Agenda")
            self._put(slide, 0, spec.get("title", AGENDA_TITLES.get(self.language.split("-")[0].lower(), "Agenda")), "title", template.AGENDA_TITLE_BOX, (36, 32, 28, 24), bold=True, major=True, spacing=0.9)
            holder = self._placeholder(slide, template.BODY)
            holder.name = "items"
            size, _ = fits(group)
            text.write(holder, [{"text": i, "before_pt": 20} for i in group], self.language, None if size == 26 else size)
            if done:
                for paragraph in holder.text_frame.paragraphs:
                    numbered = f'<a:buAutoNum {nsdecls("a")} type="arabicPlain" startAt="{done + 1}"/>'
                    paragraph._p.get_or_add_pPr().append(parse_xml(numbered))
            done += len(group)
            self._number(slide)

    def _agenda_items(self):
        slides = self.deck["slides"]
        sections = [s["title"] for s in slides if s["layout"] == "section"]
        return sections or [s["title"] for s in slides if s["layout"] in CONTENT_LAYOUTS] or [self.deck["title"]]

    def _section(self, spec):
        self.sections += 1
        slide = self._slide("Section")
        self._put_plain(slide, template.KICKER, f"{self.sections:02d}", "number")
        title = self._put(slide, 0, spec["title"], "title", template.SECTION_TITLE_BOX, (40, 36, 32, 28), bold=True, major=True, spacing=0.9)
        sub = self._put(slide, template.BODY, spec.get("subtitle"), "subtitle", template.SECTION_SUB_BOX, (20, 18, 16))
        self._stack(title, spec["title"], template.SECTION_TITLE_BOX, sub, template.SECTION_SUB_BOX)

    def _bullets(self, spec):
        groups = self._split_bullets(spec["bullets"], BODY_PT, template.BULLETS_BOX)
        for number, group in enumerate(groups, start=1):
            slide = self._content_slide("Bullets", (number, len(groups)))
            self._put_bullets(slide, template.BODY, group, "bullets", template.BULLETS_BOX, BODY_PT, 20)

    def _two_column(self, spec):
        boxes = [template.column_body_box(i) for i in range(2)]
        split = [self._split_bullets(c["bullets"], COLUMN_PT, box) for c, box in zip(spec["columns"], boxes)]
        parts = max(len(groups) for groups in split)
        groups = [even(c["bullets"], parts) if len(s) < parts else s for c, s in zip(spec["columns"], split)]
        for part in range(parts):
            slide = self._content_slide("Two columns", (part + 1, parts))
            shown = [g[min(part, len(g) - 1)] for g in groups]  # the shorter column stays beside the longer one
            size = min(self._bullets_fit(s, COLUMN_PT, box)[0] for s, box in zip(shown, boxes))
            for i, (head, body) in enumerate(((template.HEAD, template.BODY), (template.HEAD_2, template.BODY_2))):
                heading = spec["columns"][i].get("heading")
                self._put(slide, head, heading, f"columns[{i}].heading", template.column_head_box(i), (20, 18, 16, 14), bold=True)
                self._put_bullets(slide, body, shown[i], f"columns[{i}].bullets", boxes[i], (size,), 18)

    def _chart(self, spec):
        chart = spec["chart"]
        layout = "Chart and takeaway" if "takeaway" in spec else "Chart"
        slide = self._content_slide(layout)
        frame = charts.add_chart(self._placeholder(slide, template.CHART), chart, self.theme.colours)
        frame.name = "chart"
        self._put_plain(slide, template.UNIT, chart.get("unit"), "chart.unit")
        self._sample(slide, chart.get("sample"))
        if "takeaway" in spec:
            self._put(slide, template.TAKEAWAY, spec["takeaway"], "takeaway", template.TAKEAWAY_BOX, TAKEAWAY_PT, bold=True)

    def _sample(self, slide, is_sample):
        self._put_plain(slide, template.SAMPLE, SAMPLE_TEXT if is_sample else None, "sample notice")

    def _table(self, spec):
        table, takeaway = spec["table"], spec.get("takeaway")
        top = 2.25 if table.get("sample") else template.TOP
        bottom = template.STRIP_BOX[1] - 0.3 if takeaway else template.BOTTOM
        plan = charts.table_plan(table, template.INNER, bottom - top, self.theme.minor)
        for number, part in enumerate(plan["parts"], start=1):
            slide = self._content_slide("Table", (number, len(plan["parts"])))
            self._sample(slide, table.get("sample"))
            caption = f"Table: {text.plain(spec['title'])}. Columns: {', '.join(plan['columns'])}. {len(part)} rows."
            frame = charts.add_table(self._placeholder(slide, template.TABLE), plan, part, self.language, caption)
            frame.name, frame.top = "table", emu(top)
            self._strip(slide, takeaway)

    def _strip(self, slide, takeaway):
        self._put(slide, template.TAKEAWAY, takeaway, "takeaway", template.STRIP_BOX, STRIP_PT, bold=True)
        if takeaway is not None:
            box = (template.MARGIN, template.STRIP_BOX[1], 0.07, template.STRIP_BOX[3])
            self._decoration(slide, MSO_SHAPE.RECTANGLE, box, "accent1")

    def _kpi(self, spec):
        kpis, gap = spec["kpis"], 0.3
        slide = self._content_slide("Title only")
        self._sample(slide, spec.get("sample"))
        width = (template.INNER - gap * (len(kpis) - 1)) / len(kpis)
        inner = (width - 0.6, 2.6)
        widest = max(measure.width_in(text.clean(k["value"]), self.theme.minor, 1, bold=True) for k in kpis)
        value_pt = next((s for s in (66, 60, 54, 48, 44, 40, 36, 32, 28) if widest * s <= inner[0] * measure.WIDTH_SAFETY), 24)
        label_pt = min(self._kpi_label_pt(k, value_pt, inner) for k in kpis)
        cards = [self._kpi_lines(k, value_pt, label_pt) for k in kpis]
        height = min(0.9 + max(self._lines_height(c, inner[0]) for c in cards), 3.4)
        bottom = template.STRIP_BOX[1] - 0.25 if "takeaway" in spec else template.BOTTOM
        top = max(2.25, 1.95 + (bottom - 1.95 - height) / 2 - 0.1)
        for index, kpi in enumerate(kpis):
            box = (template.MARGIN + index * (width + gap), top, width, height)
            card = self._box(slide, box, f"kpis[{index}]", fill="bg2", pad=0.3)
            card.text_frame.vertical_anchor = MSO_ANCHOR.TOP
            card.text_frame.margin_top = emu(0.45)
            text.write(card, cards[index], self.language)
            self._decoration(slide, MSO_SHAPE.RECTANGLE, (box[0], box[1], box[2], 0.07), "accent1" if index % 2 == 0 else "accent2")
        self._strip(slide, spec.get("takeaway"))

    def _kpi_lines(self, kpi, value_pt, label_pt):
        colour = {"up": self.theme.good, "down": "accent5"}.get(kpi.get("trend"), "tx1")
        sign = {"up": "▲ ", "down": "▼ "}.get(kpi.get("trend"), "")
        lines = [{"text": str(kpi["value"]), "bold": True, "colour": "tx2", "size": value_pt}]
        lines.append({"text": kpi["label"], "colour": "tx1", "size": label_pt, "before_pt": 4})
        if "delta" in kpi:
            lines.append({"text": sign + kpi["delta"], "bold": True, "colour": colour, "size": 16, "before_pt": 10})
        return lines

    def _lines_height(self, lines, width):
        return sum(
            measure.height_in([{**line, "text": text.plain(line["text"])}], self.theme.minor, line["size"], width) + line.get("before_pt", 0) / 72
            for line in lines
        )

    def _kpi_label_pt(self, kpi, value_pt, inner):
        return next((s for s in (20, 18, 16, 14) if self._lines_height(self._kpi_lines(kpi, value_pt, s), inner[0]) <= inner[1]), 14)

    def _timeline(self, spec):
        steps, gap = spec["steps"], 0.35
        slide = self._content_slide("Title only")
        self._sample(slide, False)
        width = (template.INNER - gap * (len(steps) - 1)) / len(steps)
        line_y, dot = 3.05, 0.26
        bottom = template.STRIP_BOX[1] - 0.25 if "takeaway" in spec else template.BOTTOM
        room = bottom - line_y - 0.4
        line = slide.shapes.add_connector(
            MSO_CONNECTOR.STRAIGHT, emu(template.MARGIN), emu(line_y), emu(template.WIDTH - template.MARGIN), emu(line_y)
        )
        line.line.width = Pt(2.25)
        line.line.color.theme_color = charts.MSO_THEME_COLOR.ACCENT_4
        line.name = "line"
        text.mark_decorative(line)
        family = self.theme.minor

        def body(step, size):
            paragraphs = [{"text": text.plain(step["title"]), "bold": True}]
            if "text" in step:
                paragraphs.append({"text": text.plain(step["text"]), "scale": max(14, size - 4) / size, "before_pt": 6})
            return measure.height_in(paragraphs, family, size, width)

        size = next((s for s in (24, 22, 20, 18, 16, 14) if all(body(step, s) <= room for step in steps)), 14)
        labels = [step.get("label", str(i)) for i, step in enumerate(steps, start=1)]
        label_pt = min(measure.fit([{"text": text.plain(v), "bold": True}], family, (20, 18, 16, 14), width, 0.4)[0] for v in labels)
        for index, step in enumerate(steps):
            x = template.MARGIN + index * (width + gap)
            label = self._box(slide, (x, line_y - 0.78, width, 0.45), f"steps[{index}].label")
            label.text_frame.vertical_anchor = MSO_ANCHOR.BOTTOM
            text.write(label, [{"text": labels[index], "bold": True, "colour": "accent1", "size": label_pt}], self.language)
            self._decoration(slide, MSO_SHAPE.OVAL, (x, line_y - dot / 2, dot, dot), "accent1")
            said = self._box(slide, (x, line_y + 0.38, width, room), f"steps[{index}]")
            lines = [{"text": step["title"], "bold": True, "colour": "tx2", "size": size}]
            if "text" in step:
                lines.append({"text": step["text"], "colour": "tx1", "size": max(14, size - 4), "before_pt": 6})
            text.write(said, lines, self.language)
        self._strip(slide, spec.get("takeaway"))

    def _image(self, spec):
        beside = "bullets" in spec or "takeaway" in spec
        slide = self._content_slide("Image and text" if beside else "Image")
        box = template.IMAGE_BOX if beside else template.IMAGE_WIDE_BOX
        picture = self._placeholder(slide, template.PICTURE).insert_picture(spec["image"]["file"])
        picture.crop_left = picture.crop_right = picture.crop_top = picture.crop_bottom = 0
        wide, high = picture.image.size
        scale = min(box[2] / wide, box[3] / high)
        size = (wide * scale, high * scale)
        picture.left, picture.top = emu(box[0] + (box[2] - size[0]) / 2), emu(box[1] + (box[3] - size[1]) / 2)
        picture.width, picture.height = emu(size[0]), emu(size[1])
        picture.name = "image"
        text.set_alt(picture, spec["image"]["alt"])
        if "bullets" in spec:
            self._put_bullets(slide, template.BODY, spec["bullets"], "bullets", template.IMAGE_TEXT_BOX, (22, 20, 18, 16, 14), 20)
        elif beside:
            holder = self._put(slide, template.BODY, spec["takeaway"], "takeaway", template.IMAGE_TEXT_BOX, TAKEAWAY_PT, bold=True)
            lines = [{"text": spec["takeaway"], "bold": True, "colour": "tx2"}]
            size, _ = measure.fit([{"text": text.plain(spec["takeaway"]), "bold": True}], self.theme.minor, TAKEAWAY_PT, template.IMAGE_TEXT_BOX[2], template.IMAGE_TEXT_BOX[3])
            text.write(holder, lines, self.language, size)
            properties = holder.text_frame.paragraphs[0]._p.get_or_add_pPr()
            properties.set("marL", "0")
            properties.set("indent", "0")
            properties.append(parse_xml(f"<a:buNone {nsdecls('a')}/>"))

    def _quote(self, spec):
        slide = self._slide("Quote")
        quote = self._put(slide, 0, spec["quote"], "quote", template.QUOTE_BOX, QUOTE_PT, major=True, spacing=1.0)
        lines = []
        if "by" in spec:
            lines.append({"text": spec["by"], "bold": True, "colour": "accent1", "size": 20})
        if "role" in spec:
            lines.append({"text": spec["role"], "size": 16, "before_pt": 2})
        holder = self._put_plain(slide, template.META, "-" if lines else None, "by")
        if lines:
            text.write(holder, lines, self.language)
        self._stack(quote, spec["quote"], self._balanced(spec["quote"], template.QUOTE_BOX), holder, template.QUOTE_BY_BOX, gap=0.3, bold=False)
        self._number(slide)

    def _closing(self, spec):
        slide = self._slide("Closing")
        bare = "bullets" not in spec
        box = (template.MARGIN, 1.75, 8.2, 2.3) if bare else template.CLOSING_TITLE_BOX
        holder = self._put(slide, 0, spec["title"], "title", box, (40, 36, 32, 28), bold=True, major=True, spacing=0.9)
        sub = self._put(slide, template.HEAD, spec.get("subtitle"), "subtitle", template.CLOSING_SUB_BOX, (20, 18, 16, 14))
        if bare:
            move(holder, box)
            if sub is not None:
                move(sub, (template.MARGIN, 4.2, 8.2, 0.9))
            self._put_plain(slide, template.BODY, None, "")
        else:
            top = 3.2 if sub is not None else 2.75
            body = (template.MARGIN, top, 8.2, 5.95 - top)
            holder = self._put_bullets(slide, template.BODY, spec["bullets"], "bullets", body, (22, 20, 18, 16, 14), 20)
            move(holder, body)
        self._put_plain(slide, template.META, spec.get("contact"), "contact")

    def _advise(self, spec, made, first):
        def warn(kind, detail):
            self.warnings.append({"slide": first, "path": self.path, "kind": kind, "detail": detail})

        if made > 1:
            warn("split", f"the {spec['layout']} slide became {made} slides")
        if len(spec.get("title", "")) > TITLE_CHARS_WANTED and spec["layout"] != "title":
            warn("long_title", f"the title has {len(spec['title'])} characters; {TITLE_CHARS_WANTED} read well")
        if spec["layout"] == "chart" and _labels_crowd(spec["chart"], self.theme.minor, "takeaway" in spec):
            warn("chart_labels", "the category names are too long for columns; \"type\": \"bar\" has room for them")
        bullets = spec.get("bullets", []) if made == 1 else []
        words = sum(len(p["text"].split()) for p in self._bullet_paragraphs(bullets))
        if len(bullets) > BULLETS_WANTED:
            warn("many_bullets", f"{len(bullets)} bullets on one slide; {BULLETS_WANTED} read well")
        if words > WORDS_WANTED:
            warn("many_words", f"{words} words of bullets; {WORDS_WANTED} read well")


def _labels_crowd(chart, family, beside):
    """Whether names under columns would be turned or dropped: longer than two lines of their share of the axis."""
    if chart["type"] not in ("column", "line", "area"):
        return False
    share = (template.CHART_LEFT_BOX if beside else template.CHART_BOX)[2] / len(chart["categories"])
    return any(measure.width_in(str(c), family, charts.CHART_PT) > 2 * share for c in chart["categories"])
