"""What build writes: the right shapes, the right numbers, the same bytes."""

import io
import os
import re
import zipfile
from pathlib import Path

import openpyxl
from pptx import Presentation
from support import SKILL, DeckTest, bullets, deck

EXAMPLES = sorted([*SKILL.glob("examples/*.json"), *SKILL.glob("examples/*.md")])
CHART = {"type": "column", "categories": ["2027", "2028"], "series": [{"name": "GWh", "values": [1.25, None]}, {"name": "Cost", "values": [-3, 4e6]}]}


class Examples(DeckTest):
    def test_every_example_builds_and_checks_clean_as_rendered(self):
        self.assertGreaterEqual(len(EXAMPLES), 4)
        for example in EXAMPLES:
            with self.subTest(example.name):
                file, built = self.build(example, f"{example.stem}.pptx")
                code, report = self.check(file)
                self.assertEqual((code, report["problems"], report["warnings"]), (0, [], []))
                self.assertTrue(report["rendered"], "LibreOffice must be here for this test")
                self.assertEqual(report["slides"], built["slides"])

    def test_the_specs_printed_in_the_skill_text_build(self):
        said = (SKILL / "SKILL.md").read_text("utf-8")
        spec = re.search(r"## A complete spec\n\n```json\n(.*?)```", said, re.DOTALL).group(1)
        outline = re.search(r"````markdown\n(.*?)````", said, re.DOTALL).group(1)
        _, report = self.build(self.write(spec))
        self.assertEqual([s["layout"] for s in report["outline"]], ["Title", "Agenda", "Section", "Bullets", "Chart and takeaway", "Closing"])
        _, report = self.build(self.write(outline, "outline.md"))
        layouts = [s["layout"] for s in report["outline"]]
        self.assertEqual(layouts, ["Title", "Agenda", "Section", "Bullets", "Two columns", "Chart and takeaway", "Table", "Quote"])

    def test_the_skill_text_keeps_to_the_standard(self):
        text = (SKILL / "SKILL.md").read_text("utf-8")
        head, body = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()
        keys = re.findall(r"^([a-z-]+):", head, re.MULTILINE)
        self.assertEqual(set(keys) - {"name", "description", "license", "compatibility", "metadata"}, set())
        self.assertIn("name: pptx-builder\n", head)
        description = " ".join(re.search(r"description: >-\n((?:  .*\n)+)", head).group(1).split())
        self.assertLessEqual(len(description), 1024)
        for word in ("deck", "slides", "presentation", "PPT", "PowerPoint"):
            self.assertIn(word, description)
        self.assertLess(body.count("\n"), 500)


class Bytes(DeckTest):
    def test_the_same_spec_gives_the_same_bytes_everywhere(self):
        spec = deck({"layout": "title"}, bullets(notes="Say it."), {"layout": "chart", "title": "Chart", "chart": CHART})
        first, _ = self.build(spec, "a/first.pptx")
        code, _ = self.run_deck("build", self.folder / "deck.json", "-o", "b/second.pptx", env={"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LC_ALL": "C"})
        self.assertEqual(code, 0)
        self.assertEqual(first.read_bytes(), (self.folder / "b/second.pptx").read_bytes())

    def test_another_spec_gives_other_bytes(self):
        first, _ = self.build(deck(bullets()), "a.pptx")
        second, _ = self.build(deck(bullets(count=4)), "b.pptx")
        self.assertNotEqual(first.read_bytes(), second.read_bytes())

    def test_an_old_file_is_replaced_whole_and_nothing_else_is_left(self):
        target = self.folder / "out" / "deck.pptx"
        target.parent.mkdir()
        target.write_bytes(b"old")
        self.build(deck(bullets()), "out/deck.pptx")
        self.assertEqual(os.listdir(target.parent), ["deck.pptx"])
        self.assertEqual(target.read_bytes()[:2], b"PK")

    def test_a_bad_spec_leaves_an_old_file_alone(self):
        (self.folder / "deck.pptx").write_bytes(b"old")
        code, _ = self.run_deck("build", self.write(deck()), "-o", "deck.pptx")
        self.assertEqual(code, 2)
        self.assertEqual((self.folder / "deck.pptx").read_bytes(), b"old")

    def test_no_bytecode_is_written_beside_the_scripts(self):
        self.build(deck(bullets()))
        self.assertEqual(list(SKILL.rglob("__pycache__")), [])


class Content(DeckTest):
    def test_chart_numbers_stand_in_the_workbook_and_on_the_slide_unchanged(self):
        for kind, stacked in (("column", True), ("bar", False), ("line", False), ("area", True)):
            chart = {**CHART, "type": kind, **({"stacked": True} if stacked else {})}
            file, _ = self.build(deck({"layout": "chart", "title": "Numbers", "chart": chart}))
            shape = next(s for s in Presentation(str(file)).slides[0].shapes if s.has_chart)
            self.assertEqual([list(s.values) for s in shape.chart.plots[0].series], [[1.25, None], [-3, 4e6]])
            self.assertEqual(list(shape.chart.plots[0].categories), ["2027", "2028"])
            book = openpyxl.load_workbook(io.BytesIO(shape.chart.part.chart_workbook.xlsx_part.blob)).active
            rows = [[c.value for c in row] for row in book.iter_rows()]
            self.assertEqual(rows, [[None, "GWh", "Cost"], ["2027", 1.25, -3], ["2028", None, 4000000]])
            self.assertIn("GWh: 2027 1.25", shape._element.xpath(".//p:cNvPr/@descr")[0])

    def test_sample_numbers_are_labelled_on_the_slide_and_others_are_not(self):
        table = {"columns": ["a", "b"], "rows": [["x", 1]]}
        pie = {"type": "pie", "categories": ["a", "b"], "series": [{"name": "s", "values": [1, 2]}]}
        kpi = {"layout": "kpi", "title": "K", "kpis": [{"value": "1", "label": "one"}]}
        slides = []
        for sample in (True, False):
            slides.append({"layout": "chart", "title": "C", "chart": {**pie, "sample": sample}})
            slides.append({"layout": "chart", "title": "C", "chart": {**pie, "type": "doughnut", "sample": sample}, "takeaway": "so"})
            slides.append({"layout": "table", "title": "T", "table": {**table, "sample": sample}})
            slides.append({**kpi, "sample": sample})
        file, _ = self.build(deck(*slides))
        shown = [any("Sample data: no figures were given" in s.text_frame.text for s in slide.shapes if s.has_text_frame) for slide in Presentation(str(file)).slides]
        self.assertEqual(shown, [True] * 4 + [False] * 4)

    def test_every_slide_has_one_title_placeholder_and_no_empty_one(self):
        file, _ = self.build(SKILL / "examples" / "business-case.json")
        for number, slide in enumerate(Presentation(str(file)).slides, start=1):
            titles = [p for p in slide.placeholders if p.placeholder_format.type in (1, 3)]
            self.assertEqual(len(titles), 1, number)
            self.assertTrue(titles[0].text_frame.text.strip(), number)
            self.assertTrue(all(p.text_frame.text.strip() for p in slide.placeholders if p.has_text_frame), number)

    def test_notes_metadata_numbers_and_footer(self):
        file, _ = self.build(deck({"layout": "title"}, bullets(notes="Say it slowly."), footer="Tests only", language="de-DE"))
        prs = Presentation(str(file))
        core = prs.core_properties
        self.assertEqual((core.title, core.author, core.language), ("A deck for a test", "Tests", "de-DE"))
        self.assertEqual(prs.slides[1].notes_slide.notes_text_frame.text, "Say it slowly.")
        self.assertFalse(prs.slides[0].has_notes_slide)
        texts = {s.name: s.text_frame.text for s in prs.slides[1].placeholders}
        self.assertEqual(texts["footer"], "Tests only")
        self.assertIn('type="slidenum"', zipfile.ZipFile(file).read("ppt/slides/slide2.xml").decode())
        self.assertNotIn("Steve Canny", core.last_modified_by)

    def test_a_table_is_native_with_a_header_row_and_right_aligned_numbers(self):
        file, _ = self.build(deck({"layout": "table", "title": "T", "table": {"columns": ["Name", "Cost"], "rows": [["Roof", 12], ["Wall", None]]}}))
        table = next(s for s in Presentation(str(file)).slides[0].shapes if s.has_table).table
        self.assertEqual([[c.text for c in r.cells] for r in table.rows], [["Name", "Cost"], ["Roof", "12"], ["Wall", ""]])
        self.assertTrue(table.first_row)
        self.assertEqual(table.cell(1, 1)._tc.xpath(".//a:pPr/@algn"), ["r"])

    def test_a_picture_keeps_its_proportions_and_its_words(self):
        from PIL import Image

        Image.new("RGB", (800, 200), "#336699").save(self.folder / "wide.png")
        file, _ = self.build(deck({"layout": "image", "title": "Picture", "image": {"path": "wide.png", "alt": "A blue field"}, "takeaway": "Blue"}))
        picture = next(s for s in Presentation(str(file)).slides[0].shapes if s._element.tag.endswith("}pic"))
        self.assertAlmostEqual(picture.width / picture.height, 4.0, places=2)
        self.assertEqual(picture._element.xpath(".//p:cNvPr/@descr"), ["A blue field"])

    def test_long_lists_are_split_not_shrunk(self):
        file, report = self.build(deck(bullets(count=30)))
        self.assertEqual([w["kind"] for w in report["warnings"]], ["split"])
        self.assertEqual(report["outline"][0]["title"], f"A title that says the point (1/{report['slides']})")
        prs = Presentation(str(file))
        said = [p.text for s in prs.slides for p in next(x for x in s.placeholders if x.name == "bullets").text_frame.paragraphs]
        self.assertEqual(said, [f"Bullet number {i} of the list" for i in range(1, 31)])
        sizes = {r.font.size.pt for s in prs.slides for x in s.placeholders if x.name == "bullets" for p in x.text_frame.paragraphs for r in p.runs if r.font.size}
        self.assertGreaterEqual(min(sizes, default=20), 18)
        code, checked = self.check(file)
        self.assertEqual((code, checked["problems"]), (0, []))

    def test_a_long_table_repeats_its_header(self):
        rows = [[f"Row {i}", i] for i in range(100)]
        file, report = self.build(deck({"layout": "table", "title": "Long", "table": {"columns": ["Name", "N"], "rows": rows}}))
        tables = [next(s for s in slide.shapes if s.has_table).table for slide in Presentation(str(file)).slides]
        self.assertGreater(report["slides"], 5)
        self.assertTrue(all(t.cell(0, 0).text == "Name" for t in tables))
        self.assertEqual(sum(len(t.rows) - 1 for t in tables), 100)
        self.assertEqual(self.check(file)[0], 0)

    def test_cjk_emoji_and_right_to_left_text_survive(self):
        lines = ["你好 😀 世界", "日本語と **English** 👩‍👩‍👧", "مرحبا بالعالم", "한국어도 됩니다"]
        file, _ = self.build(deck({"layout": "bullets", "title": "体は敵を覚えている 🛡️", "bullets": lines}, language="ja-JP"))
        paragraphs = next(p for p in Presentation(str(file)).slides[0].placeholders if p.name == "bullets").text_frame.paragraphs
        self.assertEqual([p.text for p in paragraphs], [line.replace("**", "") for line in lines])
        self.assertEqual([r.text for r in paragraphs[0].runs], ["你好 ", "😀 ", "世界"])
        self.assertEqual(paragraphs[2]._p.xpath("a:pPr/@rtl"), ["1"])
        self.assertEqual(self.check(file)[0], 0)

    def test_sixty_slides(self):
        slides = [{"layout": "title"}, {"layout": "agenda"}]
        for i in range(1, 15):
            slides += [{"layout": "section", "title": f"Part {i}"}, bullets(f"Point of part {i}"), {"layout": "chart", "title": f"Chart {i}", "chart": CHART}]
            slides.append({"layout": "quote", "quote": f"Said in part {i}.", "by": "Somebody"})
        slides += [bullets("Last but one"), {"layout": "closing", "title": "The end"}]
        file, report = self.build(deck(*slides, theme="ember"))
        self.assertGreaterEqual(report["slides"], 60)
        code, checked = self.check(file)
        self.assertEqual((code, checked["problems"], checked["warnings"]), (0, [], []))

    def test_an_accent_too_light_for_text_is_darkened_and_said(self):
        file, report = self.build(deck(bullets(kicker="Kicker"), accent="#FFE000"))
        self.assertEqual([w["kind"] for w in report["warnings"]], ["accent"])
        self.assertEqual(self.check(file)[0], 0)


class Rendering(DeckTest):
    def test_render_draws_each_slide(self):
        from PIL import Image

        file, _ = self.build(deck({"layout": "title"}, bullets()))
        code, report = self.run_deck("render", file, "--png-dir", "png", "--width", "640")
        self.assertEqual((code, report["slides"]), (0, 2))
        for path in report["images"]:
            with Image.open(Path(path)) as image:
                self.assertEqual(image.size, (640, 360))
                self.assertGreater(len(image.convert("RGB").getcolors(1 << 20)), 20, "a blank page")
