"""Native charts and tables. A chart keeps its numbers in an embedded workbook, so that they can be edited in PowerPoint; no
number of the spec is rounded or invented here.
"""

import re

from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE, XL_LABEL_POSITION, XL_LEGEND_POSITION, XL_MARKER_STYLE, XL_TICK_LABEL_POSITION, XL_TICK_MARK
from pptx.enum.dml import MSO_THEME_COLOR
from pptx.oxml import parse_xml
from pptx.oxml.ns import nsdecls, qn
from pptx.util import Pt

from . import measure, text, theme
from .template import emu

TYPES = {
    ("column", False): XL_CHART_TYPE.COLUMN_CLUSTERED,
    ("column", True): XL_CHART_TYPE.COLUMN_STACKED,
    ("bar", False): XL_CHART_TYPE.BAR_CLUSTERED,
    ("bar", True): XL_CHART_TYPE.BAR_STACKED,
    ("line", False): XL_CHART_TYPE.LINE_MARKERS,
    ("area", False): XL_CHART_TYPE.AREA,
    ("area", True): XL_CHART_TYPE.AREA_STACKED,
    ("pie", False): XL_CHART_TYPE.PIE,
    ("doughnut", False): XL_CHART_TYPE.DOUGHNUT,
}
# Neighbouring series differ in lightness as well as in hue.
SERIES_COLOURS = (
    MSO_THEME_COLOR.ACCENT_1, MSO_THEME_COLOR.ACCENT_2, MSO_THEME_COLOR.ACCENT_3,
    MSO_THEME_COLOR.ACCENT_4, MSO_THEME_COLOR.ACCENT_5, MSO_THEME_COLOR.ACCENT_6,
)
SERIES_SLOTS = ("accent1", "accent2", "accent3", "accent4", "accent5", "accent6")
LABELLED_MAX = 8
CHART_PT = 14
NUMERIC = re.compile(r"^[-+−~≈<>]?\s?[€$£¥]?\s?[-+−]?\d[\d.,\s]*\s?(%|[A-Za-z€$£¥]{0,4})$")

CELL_PT = (18, 16, 14, 12)
CELL_PAD_X, CELL_PAD_Y = 0.12, 0.085
AFTER_NUMBERS = 0.35  # room to the left of a text column that follows a column of numbers


def add_chart(placeholder, chart, colours):
    """Puts the chart into its placeholder and styles it."""
    chart = {**chart, "number_format": chart.get("number_format") or number_format(chart)}
    data = CategoryChartData(number_format=chart["number_format"])
    data.categories = [str(c) for c in chart["categories"]]
    for series in chart["series"]:
        data.add_series(series["name"], series["values"])
    frame = placeholder.insert_chart(TYPES[chart["type"], bool(chart.get("stacked"))], data)
    native = frame.chart
    native.has_title = False
    native.font.size = Pt(CHART_PT)
    native.font.color.theme_color = MSO_THEME_COLOR.TEXT_1
    if chart["type"] in ("pie", "doughnut"):
        _style_round(native, chart, colours)
    else:
        _style_axes(native, chart)
    text.set_alt(frame, chart.get("alt") or describe(chart))
    return frame


def number_format(chart):
    """As many decimals as the numbers have, two at most, and thousands apart where there are any."""
    values = [v for s in chart["series"] for v in s["values"] if v is not None]
    largest = max(abs(v) for v in values)
    decimals = 0 if largest >= 10000 else max(len(f"{v:.2f}".rstrip("0").partition(".")[2]) for v in values)
    whole = "#,##0" if largest >= 10000 else "0"
    return whole + ("." + "0" * decimals if decimals else "")


def describe(chart):
    """A sentence that says what the chart shows."""
    parts = []
    for series in chart["series"]:
        points = ", ".join(f"{c} {number(v)}" for c, v in zip(chart["categories"], series["values"]))
        parts.append(f"{series['name']}: {points}")
    unit = f" in {chart['unit']}" if "unit" in chart else ""
    sample = " Sample data." if chart.get("sample") else ""
    said = f"{'Stacked ' if chart.get('stacked') else ''}{chart['type']} chart{unit}. {'; '.join(parts)}.{sample}"
    return said if len(said) <= 1000 else said[:999] + "…"


def number(value):
    """A number as a person writes it; None is a gap."""
    if value is None:
        return "–"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _style_round(native, chart, colours):
    plot = native.plots[0]
    plot.vary_by_categories = True
    series = plot.series[0]
    for index in range(len(chart["categories"])):
        point = series.points[index]
        point.format.fill.solid()
        point.format.fill.fore_color.theme_color = SERIES_COLOURS[index % len(SERIES_COLOURS)]
        if index >= len(SERIES_COLOURS):
            point.format.fill.fore_color.brightness = 0.4
        point.format.line.color.theme_color = MSO_THEME_COLOR.BACKGROUND_1
        point.format.line.width = Pt(1.5)
    native.has_legend = True
    native.legend.position = XL_LEGEND_POSITION.RIGHT
    native.legend.include_in_layout = False
    native.legend.font.size = Pt(CHART_PT)
    plot.has_data_labels = True
    labels = plot.data_labels
    labels.show_percentage, labels.show_value, labels.show_category_name = True, False, False
    labels.number_format, labels.number_format_is_linked = "0%", False
    labels.font.size, labels.font.bold = Pt(CHART_PT), True
    if chart["type"] == "pie":
        labels.position = XL_LABEL_POSITION.OUTSIDE_END
    else:
        _label_rings(plot, len(chart["categories"]), colours)


def _label_rings(plot, count, colours):
    """A doughnut's labels lie on its parts: light on the dark ones, dark on the light ones."""
    for hole in plot._element.findall(qn("c:holeSize")):
        hole.set("val", "60")
    labels = plot._element.find(qn("c:dLbls"))
    for index in reversed(range(count)):
        fill = colours[SERIES_SLOTS[index % len(SERIES_SLOTS)]]
        dark = index < len(SERIES_SLOTS) and theme.contrast(fill, colours["lt1"]) > theme.contrast(fill, colours["dk1"])
        flags = "".join(f'<c:show{what} val="{int(what == "Percent")}"/>' for what in ("LegendKey", "Val", "CatName", "SerName", "Percent", "BubbleSize"))
        xml = (
            f'<c:dLbl {nsdecls("c", "a")}><c:idx val="{index}"/><c:numFmt formatCode="0%" sourceLinked="0"/><c:spPr/>'
            f'<c:txPr><a:bodyPr/><a:lstStyle/><a:p><a:pPr><a:defRPr sz="{CHART_PT * 100}" b="1"><a:solidFill>'
            f'<a:schemeClr val="{"bg1" if dark else "tx1"}"/></a:solidFill></a:defRPr></a:pPr><a:endParaRPr/></a:p></c:txPr>{flags}</c:dLbl>'
        )
        labels.insert(0, parse_xml(xml))


def _style_axes(native, chart):
    plot, kind = native.plots[0], chart["type"]
    many = len(chart["series"]) > 1
    labelled = kind != "area" and len(chart["series"]) * len(chart["categories"]) <= LABELLED_MAX * (2 if kind == "column" else 1)
    labelled = labelled and not chart.get("stacked") and (kind != "line" or not many)
    _style_series(native, chart)
    native.has_legend = many
    if many:
        native.legend.position = XL_LEGEND_POSITION.TOP
        native.legend.include_in_layout = False
        native.legend.font.size = Pt(CHART_PT)
    values, categories = native.value_axis, native.category_axis
    negative = any((v or 0) < 0 for s in chart["series"] for v in s["values"])
    categories.format.line.color.theme_color = MSO_THEME_COLOR.TEXT_1
    categories.format.line.color.brightness = 0.5
    categories.major_tick_mark = XL_TICK_MARK.NONE
    categories.tick_labels.font.size = Pt(CHART_PT if len(chart["categories"]) <= 12 else 12)
    categories.has_major_gridlines = False
    if negative:
        categories.tick_label_position = XL_TICK_LABEL_POSITION.LOW
    if kind == "bar":
        categories.reverse_order = True  # the first category stands on top, as in the spec
    values.has_major_gridlines = not labelled
    values.visible = not labelled
    values.major_tick_mark = XL_TICK_MARK.NONE
    if not labelled:
        values.major_gridlines.format.line.color.theme_color = MSO_THEME_COLOR.TEXT_1
        values.major_gridlines.format.line.color.brightness = 0.8
        values.major_gridlines.format.line.width = Pt(0.75)
        values.format.line.fill.background()
        values.tick_labels.font.size = Pt(CHART_PT)
        if kind == "bar":
            values.tick_label_position = XL_TICK_LABEL_POSITION.HIGH
    if not negative and kind != "line":
        values.minimum_scale = 0
    if not labelled and all(float(v or 0).is_integer() for s in chart["series"] for v in s["values"]) or "%" in chart["number_format"]:
        values.tick_labels.number_format, values.tick_labels.number_format_is_linked = chart["number_format"], False
    if labelled:
        plot.has_data_labels = True
        labels = plot.data_labels
        labels.show_value = True
        labels.font.size, labels.font.bold = Pt(CHART_PT), True
        labels.number_format, labels.number_format_is_linked = chart["number_format"], False
        labels.position = XL_LABEL_POSITION.ABOVE if kind == "line" else XL_LABEL_POSITION.OUTSIDE_END
    if kind in ("column", "bar"):
        plot.gap_width = 55 if not many or chart.get("stacked") else 80
        plot.overlap = 100 if chart.get("stacked") else -5


def _style_series(native, chart):
    for index, series in enumerate(native.plots[0].series):
        colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
        if chart["type"] == "line":
            series.smooth = False
            series.format.line.width = Pt(3)
            series.format.line.color.theme_color = colour
            series.marker.style, series.marker.size = XL_MARKER_STYLE.CIRCLE, 8
            series.marker.format.fill.solid()
            series.marker.format.fill.fore_color.theme_color = colour
            series.marker.format.line.color.theme_color = MSO_THEME_COLOR.BACKGROUND_1
        else:
            series.format.fill.solid()
            series.format.fill.fore_color.theme_color = colour
            if chart["type"] in ("column", "bar"):
                series.invert_if_negative = False


def cell_text(value):
    """A cell's value as it is shown."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if value is None:
        return ""
    return number(value) if isinstance(value, (int, float)) else text.clean(value)


def table_plan(table, width, height, family):
    """Sizes of a table: font size, column widths, row heights, and the rows of each slide that it needs."""
    columns = [text.clean(c) for c in table["columns"]]
    rows = [[cell_text(v) for v in row] for row in table["rows"]]
    rights = [i > 0 and _is_numeric_column(rows, i) for i in range(len(columns))]
    pads = [AFTER_NUMBERS if i and rights[i - 1] and not right else CELL_PAD_X for i, right in enumerate(rights)]
    split = None
    for size in CELL_PT:
        widths = _column_widths(columns, rows, size, width, family, pads)
        heights = [_row_height(row, widths, size, family, index < 0, pads) for index, row in enumerate([columns, *rows], start=-1)]
        plan = {"size": size, "widths": widths, "columns": columns, "rows": rows, "rights": rights, "pads": pads}
        if sum(heights) <= height:
            stretch = min(0.16, (height - sum(heights)) / len(heights))
            return {**plan, "parts": [[(r, h + stretch) for r, h in zip(rows, heights[1:])]], "head": heights[0] + stretch}
        if size == 14:
            split = {**plan, **_split_rows(rows, heights, height)}
    return split


def _split_rows(rows, heights, height):
    head, parts, used = heights[0], [[]], heights[0]
    for row, tall in zip(rows, heights[1:]):
        if parts[-1] and used + tall > height:
            parts.append([])
            used = head
        parts[-1].append((row, tall))
        used += tall
    if len(parts) > 1:  # even out the slides where that still fits
        each = -(-len(rows) // len(parts))
        paired = list(zip(rows, heights[1:]))
        even = [paired[i : i + each] for i in range(0, len(paired), each)]
        if all(head + sum(h for _, h in part) <= height for part in even):
            parts = even
    return {"parts": parts, "head": head}


def _column_widths(columns, rows, size, width, family, pads):
    wanted = []
    for index, head in enumerate(columns):
        cells = [measure.width_in(row[index], family, size) for row in rows]
        longest = max([measure.width_in(head, family, size, bold=True), *cells])
        wanted.append(min(longest, 4.2) + CELL_PAD_X + pads[index] + 0.1)
    total = sum(wanted)
    if total < width:  # half of the room left by content, half alike: short columns stay short, none looks crowded
        left = (width - total) / 2
        return [w + left / len(wanted) + left * w / total for w in wanted]
    return [w * width / total for w in wanted]


def _row_height(cells, widths, size, family, is_head, pads):
    tallest = size * 1.25 / 72
    for index, (cell, width) in enumerate(zip(cells, widths)):
        bold = is_head or index == 0
        lines = measure.wrap(cell, family, size, bold, width - CELL_PAD_X - pads[index] - 0.04) if cell else 1
        tallest = max(tallest, lines * size * measure.line_em(cell, family, bold) / 72)
    return tallest + 2 * CELL_PAD_Y


def add_table(placeholder, plan, part, language, caption):
    """Puts one part of a planned table into its placeholder."""
    frame = placeholder.insert_table(rows=len(part) + 1, cols=len(plan["columns"]))
    native = frame.table
    properties = native._tbl.tblPr
    properties.set("firstRow", "1")
    properties.set("bandRow", "0")
    for old in properties.findall(qn("a:tableStyleId")):
        properties.remove(old)
    style = parse_xml(f'<a:tableStyleId {nsdecls("a")}>{{2D5ABB26-0587-4C30-8999-92F81FD0307C}}</a:tableStyleId>')
    properties.append(style)
    for index, width in enumerate(plan["widths"]):
        native.columns[index].width = emu(width)
    lines = [(plan["columns"], plan["head"]), *part]
    for r, (cells, height) in enumerate(lines):
        native.rows[r].height = emu(height)
        for c, value in enumerate(cells):
            _write_cell(native.cell(r, c), value, r == 0, c == 0, plan["rights"][c], plan["pads"][c], plan["size"], language)
    frame.height = sum(emu(h) for _, h in lines)
    frame.width = sum(emu(w) for w in plan["widths"])
    text.set_alt(frame, caption)
    return frame


def _is_numeric_column(rows, index):
    cells = [row[index] for row in rows if row[index] not in ("", "–", "-")]
    return bool(cells) and all(NUMERIC.match(cell) for cell in cells)


def _write_cell(cell, value, is_head, is_first, right, pad, size, language):
    paragraph = {"text": value, "bold": is_head or is_first, "colour": "accent1" if is_head else "tx1"}
    if right:
        paragraph["align"] = "r"
    text.write(cell, [paragraph], language, size)
    cell.margin_left, cell.margin_right = emu(pad), emu(CELL_PAD_X)
    cell.margin_top = cell.margin_bottom = emu(CELL_PAD_Y)
    properties = cell._tc.get_or_add_tcPr()
    properties.set("anchor", "b" if is_head else "ctr")
    if is_head:
        line, width = '<a:schemeClr val="accent1"/>', 19050
    else:
        line, width = '<a:schemeClr val="tx1"><a:lumMod val="25000"/><a:lumOff val="75000"/></a:schemeClr>', 6350
    for side in ("lnL", "lnR", "lnT"):
        properties.append(parse_xml(f'<a:{side} {nsdecls("a")} w="0"><a:noFill/></a:{side}>'))
    properties.append(parse_xml(f'<a:lnB {nsdecls("a")} w="{width}"><a:solidFill>{line}</a:solidFill></a:lnB>'))
    properties.append(parse_xml(f'<a:noFill {nsdecls("a")}/>'))
