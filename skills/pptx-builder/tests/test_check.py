"""What check finds in a bad deck, and what a bad spec is answered."""

import copy
import json
import unittest

from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.util import Inches, Pt
from support import DeckTest, bullets, deck

from pptx_deck import theme

CHART = {"type": "column", "categories": ["a", "b"], "series": [{"name": "s", "values": [1, 2]}]}


class Found(DeckTest):
    def spoilt(self, spoil, *slides):
        """A good deck, spoilt, and the report of its check with and without rendering."""
        file, _ = self.build(deck(*(slides or [{"layout": "title"}, bullets()])))
        prs = Presentation(str(file))
        spoil(prs)
        prs.save(str(file))
        return self.check(file), self.check(file, "--no-render")

    def assert_found(self, results, kind, slide, path=None):
        for code, report in results:
            found = [p for p in report["problems"] if p["kind"] == kind]
            self.assertEqual((code, report["ok"]), (1, False), report)
            self.assertTrue(found, f"no {kind} in {report['problems']}")
            self.assertEqual(found[0]["slide"], slide)
            self.assertTrue(found[0]["fix"])
            if path:
                self.assertEqual(found[0]["path"], path)

    @staticmethod
    def shape(prs, slide, name):
        return next(s for s in prs.slides[slide - 1].shapes if s.name == name)

    def test_overfull_text(self):
        def spoil(prs):
            frame = self.shape(prs, 2, "bullets").text_frame
            for _ in range(7):
                frame.add_paragraph().text = "One more line that nobody has room for"

        results = self.spoilt(spoil)
        self.assert_found(results, "overflow", 2, "$.slides[1].bullets")
        self.assertLess(next(p for p in results[0][1]["problems"] if p["kind"] == "overflow")["max_items"], 10)

    def test_a_word_too_long_for_its_line(self):
        def spoil(prs):
            self.shape(prs, 2, "title").text_frame.text = "Donaudampfschifffahrtsgesellschaft" * 12

        results = self.spoilt(spoil)
        self.assert_found(results, "overflow", 2, "$.slides[1].title")
        self.assertLess(results[0][1]["problems"][0]["max_chars"], 34 * 12)

    def test_a_shape_beyond_the_edge(self):
        def spoil(prs):
            self.shape(prs, 2, "bullets").left = Inches(6)

        self.assert_found(self.spoilt(spoil), "off_slide", 2)

    def test_text_that_runs_off_the_page_although_its_box_does_not(self):
        def spoil(prs):
            box = prs.slides[1].shapes.add_textbox(Inches(9), Inches(5.2), Inches(4), Inches(0.5))
            box.text_frame.word_wrap = False
            box.text_frame.text = "A line without a break that goes on beyond the right edge of the slide"

        self.assert_found(self.spoilt(spoil)[:1], "off_slide", 2)

    def test_small_type_overlap_and_left_over_text(self):
        def spoil(prs):
            for name, top in (("one", 5.0), ("two", 5.3)):
                box = prs.slides[1].shapes.add_textbox(Inches(1), Inches(top), Inches(3), Inches(0.6))
                box.name = name
                box.text_frame.text = "Lorem ipsum"
                box.text_frame.paragraphs[0].runs[0].font.size = Pt(8)

        results = self.spoilt(spoil)
        for kind in ("font_size", "overlap", "placeholder_text"):
            self.assert_found(results, kind, 2)

    def test_weak_contrast_as_rendered(self):
        def spoil(prs):
            self.shape(prs, 2, "title").text_frame.paragraphs[0].runs[0].font.color.rgb = RGBColor(0xDD, 0xDD, 0xDD)

        self.assert_found(self.spoilt(spoil)[:1], "contrast", 2, "$.slides[1].title")

    def test_missing_title_alt_text_and_metadata(self):
        def spoil(prs):
            title = self.shape(prs, 1, "title")._element
            title.getparent().remove(title)
            self.shape(prs, 1, "chart")._element.xpath(".//p:cNvPr")[0].set("descr", "")
            prs.core_properties.title = ""

        code, report = self.spoilt(spoil, {"layout": "chart", "title": "C", "chart": CHART})[1]
        self.assertEqual(code, 1)
        self.assertEqual({p["kind"] for p in report["problems"]}, {"missing_title", "alt_text", "metadata"})

    def test_a_chart_whose_workbook_says_something_else(self):
        def spoil(prs):
            part = self.shape(prs, 1, "chart").chart.part
            part._element.xpath(".//c:val//c:pt[1]/c:v")[0].text = "99"

        self.assert_found(self.spoilt(spoil, {"layout": "chart", "title": "C", "chart": CHART}), "chart_data", 1)

    def test_a_stock_deck_of_somebody_else_is_read(self):
        prs = Presentation()
        prs.slides.add_slide(prs.slide_layouts[1])
        prs.save(str(self.folder / "stock.pptx"))
        code, report = self.check(self.folder / "stock.pptx")
        self.assertEqual(code, 1)
        self.assertIn("missing_title", {p["kind"] for p in report["problems"]})

    def test_problems_are_repaired_by_doing_what_they_say(self):
        spec = deck(
            {"layout": "title", "title": "An endless title " * 15},
            bullets("This title goes on and on " * 10, source="a source that is longer than its line " * 4),
            {"layout": "chart", "title": "C", "chart": CHART, "takeaway": "a takeaway with far too many words " * 11},
        )
        for round_number in range(1, 5):
            code, report = self.run_deck("build", self.write(spec), "-o", "deck.pptx")
            if code == 0:
                break
            self.assertLess(round_number, 4, report["problems"])
            for found in report["problems"]:
                index, field = int(found["path"].split("[")[1].split("]")[0]), found["path"].rsplit(".", 1)[1]
                spec["slides"][index][field] = spec["slides"][index][field][: found["max_chars"]].strip()
        self.assertGreater(round_number, 1, "the spec was meant to be too long")
        self.assertEqual(self.check(self.folder / "deck.pptx")[0], 0)


class BadFiles(DeckTest):
    def test_files_that_are_no_deck(self):
        (self.folder / "empty.pptx").write_bytes(b"")
        (self.folder / "text.pptx").write_text("hello")
        good, _ = self.build(deck(bullets()))
        (self.folder / "cut.pptx").write_bytes(good.read_bytes()[:5000])
        for name in ("empty.pptx", "text.pptx", "cut.pptx", "absent.pptx"):
            code, report = self.check(self.folder / name)
            self.assertEqual(code, 2, name)
            self.assertIn(report["problems"][0]["kind"], ("file", "missing"), name)

    def test_without_libreoffice_check_says_so_and_render_refuses(self):
        file, _ = self.build(deck(bullets()))
        env = {"PATH": "/nowhere"}
        code, report = self.run_deck("check", file, env=env)
        self.assertEqual((code, report["rendered"], report["warnings"][0]["kind"]), (0, False, "not_rendered"))
        code, report = self.run_deck("render", file, "--png-dir", "png", env=env)
        self.assertEqual(code, 3)
        self.assertIn("soffice", report["problems"][0]["detail"])


def broken(change):
    """A good spec, changed."""
    spec = deck({"layout": "title"}, bullets(), {"layout": "chart", "title": "C", "chart": copy.deepcopy(CHART)})
    change(spec)
    return spec


BAD = [
    ("$.title", "missing", lambda s: s.pop("title")),
    ("$.slides", "missing", lambda s: s.update(slides=[])),
    ("$.slides", "wrong_type", lambda s: s.update(slides={"layout": "title"})),
    ("$.slides[1].layout", "bad_value", lambda s: s["slides"][1].update(layout="bulets")),
    ("$.slides[1].layout", "missing", lambda s: s["slides"][1].pop("layout")),
    ("$.slides[1]", "wrong_type", lambda s: s["slides"].__setitem__(1, "bullets")),
    ("$.slides[1].bullets", "missing", lambda s: s["slides"][1].pop("bullets")),
    ("$.slides[1].bullets", "wrong_type", lambda s: s["slides"][1].update(bullets="one")),
    ("$.slides[1].bullets[0]", "wrong_type", lambda s: s["slides"][1].update(bullets=[7])),
    ("$.slides[1].bullets[0].txt", "unknown_field", lambda s: s["slides"][1].update(bullets=[{"text": "a", "txt": "b"}])),
    ("$.slides[1].title", "missing", lambda s: s["slides"][1].update(title="  ")),
    ("$.slides[1].title", "too_long", lambda s: s["slides"][1].update(title="x" * 301)),
    ("$.slides[1].title", "bad_value", lambda s: s["slides"][1].update(title="a\u0000b")),
    ("$.slides[1].subtitle", "unknown_field", lambda s: s["slides"][1].update(subtitle="x")),
    ("$.theme", "bad_value", lambda s: s.update(theme="blue")),
    ("$.accent", "bad_value", lambda s: s.update(accent="red")),
    ("$.slides[2].chart.type", "bad_value", lambda s: s["slides"][2]["chart"].update(type="radar")),
    ("$.slides[2].chart.series[0].values", "bad_value", lambda s: s["slides"][2]["chart"]["series"][0].update(values=[1])),
    ("$.slides[2].chart.series[0].values[1]", "wrong_type", lambda s: s["slides"][2]["chart"]["series"][0].update(values=[1, "2"])),
    ("$.slides[2].chart.series[0].values[0]", "wrong_type", lambda s: s["slides"][2]["chart"]["series"][0].update(values=[float("nan"), 1])),
    ("$.slides[2].chart.series[0].values[0]", "wrong_type", lambda s: s["slides"][2]["chart"]["series"][0].update(values=[True, 1])),
    ("$.slides[2].chart.series", "too_many", lambda s: s["slides"][2]["chart"].update(type="pie", series=CHART["series"] * 2)),
    ("$.slides[2].chart.stacked", "bad_value", lambda s: s["slides"][2]["chart"].update(type="line", stacked=True)),
    ("$.slides[2].table.rows[0]", "bad_value", lambda s: s["slides"].__setitem__(2, {"layout": "table", "title": "T", "table": {"columns": ["a"], "rows": [[1, 2]]}})),
    ("$.slides[2].image.path", "missing", lambda s: s["slides"].__setitem__(2, {"layout": "image", "title": "I", "image": {"path": "no.png", "alt": "x"}})),
    ("$.slides[2].columns", "missing", lambda s: s["slides"].__setitem__(2, {"layout": "two_column", "title": "I", "columns": [{"bullets": ["a"]}]})),
    ("$.slides", "too_many", lambda s: s.update(slides=[{"layout": "title"}] * 201)),
]


class BadSpecs(DeckTest):
    def test_each_mistake_is_named_by_its_path_with_a_fix(self):
        for path, kind, change in BAD:
            with self.subTest(path=path, kind=kind):
                code, report = self.run_deck("build", self.write(broken(change)), "-o", "deck.pptx")
                self.assertEqual(code, 2)
                self.assertFalse((self.folder / "deck.pptx").exists())
                self.assertIn((path, kind), [(p["path"], p["kind"]) for p in report["problems"]])
                self.assertTrue(all(p["fix"] and p["detail"] for p in report["problems"]))

    def test_the_received_value_and_the_near_miss_are_said(self):
        _, report = self.run_deck("build", self.write(broken(lambda s: s["slides"][1].update(layout="bulets"))), "-o", "deck.pptx")
        self.assertIn('"bulets"', report["problems"][0]["detail"])
        self.assertIn('Did you mean "bullets"?', report["problems"][0]["fix"])

    def test_text_that_is_no_json(self):
        for text in ("", "{", '{"title": "a",}', "[]", "null", "[" * 20000, '{"title": "\ud800"}'.encode("utf-8", "surrogatepass").decode("latin-1")):
            code, report = self.run_deck("build", self.write(text), "-o", "deck.pptx")
            self.assertEqual((code, report["ok"]), (2, False), text[:20])
        (self.folder / "deck.json").write_bytes(b"\xff\xfe{}")
        self.assertEqual(self.run_deck("build", "deck.json", "-o", "deck.pptx")[0], 2)

    def test_arguments(self):
        spec = self.write(deck(bullets()))
        for arguments in ((), ("build",), ("build", spec), ("build", spec, "-o", "deck.ppt"), ("bild", spec), ("build", "absent.json", "-o", "a.pptx"), ("render", spec)):
            code, report = self.run_deck(*arguments)
            self.assertEqual((code, report["ok"]), (2, False), arguments)
        (self.folder / "file").write_text("")
        self.assertEqual(self.run_deck("build", spec, "-o", "file/deck.pptx")[0], 2)

    def test_outlines(self):
        bad = {"text before": "line 1", "# T\n\n## Empty\n": "line 3", "---\ncolour: red\n---\n# T": "line 2", "---\ntitle: x\n": "line 1", "# T\n- bullet under the title": "line 2"}
        for text, path in bad.items():
            code, report = self.run_deck("build", self.write(text, "deck.md"), "-o", "deck.pptx")
            self.assertEqual((code, report["problems"][0]["path"]), (2, path), text)

    def test_schema_is_printed_as_it_is_used(self):
        code, schema = self.run_deck("schema")
        self.assertEqual(code, 0)
        layouts = [n["properties"]["layout"]["const"] for n in schema["$defs"]["slide"]["oneOf"]]
        self.assertEqual(len(layouts), 12)
        json.dumps(schema)


class Themes(unittest.TestCase):
    def test_every_pair_of_text_and_ground_can_be_read(self):
        for each in theme.THEMES.values():
            colours = {**each.colours, "good": each.colours[each.good]}
            for text, ground, least in theme.PAIRS:
                self.assertGreaterEqual(theme.contrast(colours[text], colours[ground]), least, (each.name, text, ground))

    def test_contrast_is_the_one_of_the_standard(self):
        self.assertAlmostEqual(theme.contrast("000000", "FFFFFF"), 21.0)
        self.assertAlmostEqual(theme.contrast("777777", "FFFFFF"), 4.48, places=2)
