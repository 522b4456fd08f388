"""What a run of text really looks like: size, weight, font and spacing through shape, layout, master and defaults.

Works on any .pptx, not only on ours.
"""

from pptx.oxml.ns import qn

TITLES = ("title", "ctrTitle")


def styles_of(shape, slide, level):
    """The lvlNpPr elements that apply to a paragraph of this level, the nearest first."""
    found = []
    tag = qn(f"a:lvl{level + 1}pPr")

    def collect(element):
        if element is not None:
            found.extend(element.findall(f"{qn('p:txBody')}/{qn('a:lstStyle')}/{tag}"))

    collect(shape._element)
    master = slide.slide_layout.slide_master
    kind = None
    if shape.is_placeholder:
        holder = shape._element.xpath(".//p:nvPr/p:ph")[0]
        kind = holder.get("type", "obj")
        collect(_placeholder(slide.slide_layout, holder))
        collect(_placeholder(master, holder))
    styles = master._element.find(qn("p:txStyles"))
    if styles is not None:
        name = "p:titleStyle" if kind in TITLES else "p:bodyStyle" if kind else "p:otherStyle"
        found += styles.findall(f"{qn(name)}/{tag}")
    return found


def _placeholder(owner, holder):
    index, kind = holder.get("idx", "0"), holder.get("type", "obj")
    for candidate in owner._element.xpath("p:cSld/p:spTree/p:sp[p:nvSpPr/p:nvPr/p:ph]"):
        other = candidate.xpath("p:nvSpPr/p:nvPr/p:ph")[0]
        same_title = kind in TITLES and other.get("type") in TITLES
        if same_title or (other.get("idx", "0") == index and index != "0"):
            return candidate
    if kind not in TITLES:
        bodies = owner._element.xpath("p:cSld/p:spTree/p:sp[p:nvSpPr/p:nvPr/p:ph[@type='body']]")
        return bodies[0] if bodies and owner._element.tag == qn("p:sldMaster") and kind in ("body", "subTitle", "obj") else None
    return None


def run_look(run, styles, theme_fonts):
    """Size in points, boldness and family of a run."""
    sources = [run.find(qn("a:rPr"))] + [s.find(qn("a:defRPr")) for s in styles]
    size = _attribute(sources, "sz")
    bold = _attribute(sources, "b")
    family = None
    for source in sources:
        latin = source.find(qn("a:latin")) if source is not None else None
        if latin is not None:
            family = latin.get("typeface")
            break
    family = {"+mj-lt": theme_fonts[0], "+mn-lt": theme_fonts[1], None: theme_fonts[1]}.get(family, family)
    return int(size) / 100 if size else 18.0, bold in ("1", "true"), family


def paragraph_look(paragraph, styles):
    """Line spacing as a factor, space before in points, and left margin in inches."""
    sources = [paragraph.find(qn("a:pPr")), *styles]
    spacing, before = 1.0, 0.0
    for source in sources:
        percent = source.find(f"{qn('a:lnSpc')}/{qn('a:spcPct')}") if source is not None else None
        if percent is not None:
            spacing = int(percent.get("val").rstrip("%")) / 100000
            break
    for source in sources:
        points = source.find(f"{qn('a:spcBef')}/{qn('a:spcPts')}") if source is not None else None
        if points is not None:
            before = int(points.get("val")) / 100
            break
    return spacing, before, int(_attribute(sources, "marL") or 0) / 914400


def _attribute(sources, name):
    for source in sources:
        if source is not None and source.get(name) is not None:
            return source.get(name)
    return None


def body_property(shape, slide, name, default):
    """An attribute of bodyPr, inherited."""
    chain = [shape._element]
    if shape.is_placeholder:
        holder = shape._element.xpath(".//p:nvPr/p:ph")[0]
        chain += [_placeholder(slide.slide_layout, holder), _placeholder(slide.slide_layout.slide_master, holder)]
    for element in chain:
        body = element.find(f"{qn('p:txBody')}/{qn('a:bodyPr')}") if element is not None else None
        if body is not None and body.get(name) is not None:
            return body.get(name)
    return default


def theme_fonts(prs):
    """The families of titles and of text."""
    from lxml import etree
    from pptx.opc.constants import RELATIONSHIP_TYPE as RT

    theme = etree.fromstring(prs.slide_master.part.part_related_by(RT.THEME).blob)
    names = {"a": "http://schemas.openxmlformats.org/drawingml/2006/main"}
    found = [theme.xpath(f"//a:{kind}/a:latin/@typeface", namespaces=names) for kind in ("majorFont", "minorFont")]
    return tuple(f[0] if f and f[0] else "Calibri" for f in found)
