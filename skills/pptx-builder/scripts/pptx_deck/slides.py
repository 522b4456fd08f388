"""Turns a checked spec into slides: chooses sizes by measuring, splits what is too long, and names every shape after the field
that it shows, so that a check of the finished file can point back into the spec.
"""

from pptx.enum.shapes import MSO_CONNECTOR, MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, MSO_AUTO_SIZE
from pptx.oxml import parse_xml
from pptx.oxml.ns import nsdecls
from pptx.util import Pt

from . import charts, measure, template, text
from .template import emu

SAMPLE_TEXT = "Sample data: no figures were given"
AGENDA_TITLES = {"ja": "目次", "zh": "目录", "ko": "목차", "fr": "Sommaire", "it": "Agenda", "ru": "Содержание", "uk": "Зміст", "pl": "Plan"}
TITLE_PT = (28, 26, 24)
QUOTE_PT = (44, 38, 34, 30, 26, 24, 22, 20)
BODY_PT = (24, 22, 20, 18)
COLUMN_PT = (22, 20, 18, 16)
TAKEAWAY_PT = (24, 22, 20, 18, 16, 14)
STRIP_PT = (20, 18, 16, 14)
BULLETS_MAX, BULLETS_WANTED, WORDS_WANTED, TITLE_CHARS_WANTED = 8, 7, 60, 90
CONTENT_LAYOUTS = ("bullets", "two_column", "chart", "table", "kpi", "timeline", "image")


class Builder:
    """One deck in the making."""

    def __init__(self, deck, theme, prs):
        self.deck, self.theme, self.prs = deck, theme, prs
        self.language = deck.get("language", "en-US")
        self.warnings = []
        self.sections = 0
        self.path = "$"
        self.spec = {}

    def build(self):
        """All slides, in order."""
        for index, spec in enumerate(self.deck["slides"]):
            self.path, self.spec = f"$.slides[{index}]", spec
            before = len(self.prs.slides)
            getattr(self, f"_{spec['layout']}")(spec)
            made = len(self.prs.slides) - before
            self._advise(spec, made, before + 1)

    # --- what every slide shares

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
            _move(title, (*title_box[:3], used))
            _move(sub, (sub_box[0], min(title_box[1] + used + gap, sub_box[1]), sub_box[2], sub_box[3]))

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

    # --- layouts

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
            groups = _even(items, parts)
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
        groups = [_even(c["bullets"], parts) if len(s) < parts else s for c, s in zip(spec["columns"], split)]
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
            _move(holder, box)
            if sub is not None:
                _move(sub, (template.MARGIN, 4.2, 8.2, 0.9))
            self._put_plain(slide, template.BODY, None, "")
        else:
            top = 3.2 if sub is not None else 2.75
            body = (template.MARGIN, top, 8.2, 5.95 - top)
            holder = self._put_bullets(slide, template.BODY, spec["bullets"], "bullets", body, (22, 20, 18, 16, 14), 20)
            _move(holder, body)
        self._put_plain(slide, template.META, spec.get("contact"), "contact")

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

    # --- advice

    def _advise(self, spec, made, first):
        def warn(kind, detail):
            self.warnings.append({"slide": first, "path": self.path, "kind": kind, "detail": detail})

        if made > 1:
            warn("split", f"the {spec['layout']} slide became {made} slides")
        if len(spec.get("title", "")) > TITLE_CHARS_WANTED and spec["layout"] != "title":
            warn("long_title", f"the title has {len(spec['title'])} characters; {TITLE_CHARS_WANTED} read well")
        bullets = spec.get("bullets", []) if made == 1 else []
        words = sum(len(p["text"].split()) for p in self._bullet_paragraphs(bullets))
        if len(bullets) > BULLETS_WANTED:
            warn("many_bullets", f"{len(bullets)} bullets on one slide; {BULLETS_WANTED} read well")
        if words > WORDS_WANTED:
            warn("many_words", f"{words} words of bullets; {WORDS_WANTED} read well")


def _even(items, parts):
    """The items in so many runs of nearly equal length."""
    base, more = divmod(len(items), parts)
    groups, at = [], 0
    for index in range(parts):
        step = base + (1 if index < more else 0)
        groups.append(items[at : at + step])
        at += step
    return [g for g in groups if g]


def _move(shape, box):
    shape.left, shape.top, shape.width, shape.height = (emu(v) for v in box)
