"""The themes: twelve colours each and a pair of fonts, and the contrast arithmetic that keeps them readable.

Every pair of text and ground that a layout uses is listed in PAIRS and holds in each theme; a brand's accent is darkened
until it does as well.
"""

import dataclasses
import io

# Names of the twelve slots of an Office theme. accent6 is the accent on dark grounds, accent5 the colour of bad news.
SLOTS = ("dk1", "lt1", "dk2", "lt2", "accent1", "accent2", "accent3", "accent4", "accent5", "accent6", "hlink", "folHlink")

# (text, ground, least contrast): 4.5 for running text, 3 for text of 18 pt and more or 14 pt bold (WCAG 2.1, 1.4.3).
PAIRS = (
    ("dk1", "lt1", 7.0),
    ("dk1", "lt2", 7.0),
    ("dk2", "lt1", 7.0),
    ("dk2", "lt2", 7.0),
    ("accent1", "lt1", 4.5),
    ("accent1", "lt2", 4.5),
    ("lt1", "dk2", 7.0),
    ("accent6", "dk2", 4.5),
    ("accent5", "lt2", 4.5),
    ("good", "lt2", 4.5),
)


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours by slot as RRGGBB, and the Latin fonts of titles and text."""

    name: str
    colours: dict
    major: str
    minor: str
    good: str = "accent1"  # the slot of good news; bad news is accent5


THEMES = {
    "harbor": Theme(
        "harbor",
        dict(zip(SLOTS, "1B2733 FFFFFF 0E2A47 F2F6F8 0B7A75 E3A32B 2F5D8C 7FB5B5 B5432A 6FD3C7 0B7A75 5B5F97".split())),
        "Calibri",
        "Calibri",
    ),
    "ember": Theme(
        "ember",
        dict(zip(SLOTS, "2A2523 FFFFFF 2B2A2E F8F4EF B0432B D9A441 4A6670 C9A58F A3262A F2A98A B0432B 6B4E71".split())),
        "Cambria",
        "Calibri",
        good="accent3",
    ),
    "grove": Theme(
        "grove",
        dict(zip(SLOTS, "1F2A24 FFFFFF 16382C F4F6F0 2B6E4A C9A227 6B8F71 A7C4A0 A8432C E6C65C 2B6E4A 5A5A80".split())),
        "Calibri",
        "Calibri",
    ),
}

# Fonts that LibreOffice and this skill's measuring use in the place of the named ones: same widths, free licence.
SUBSTITUTES = {"Calibri": "Carlito", "Cambria": "Caladea", "Arial": "LiberationSans", "Times New Roman": "LiberationSerif"}


def luminance(rgb):
    """Relative luminance of RRGGBB."""
    parts = []
    for i in (0, 2, 4):
        c = int(rgb[i : i + 2], 16) / 255
        parts.append(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    """Contrast ratio of two RRGGBB colours, 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mix(a, b, share_b):
    """RRGGBB between a and b."""
    return "".join(f"{round(int(a[i:i + 2], 16) * (1 - share_b) + int(b[i:i + 2], 16) * share_b):02X}" for i in (0, 2, 4))


def choose(name, accent):
    """The theme with the brand's accent in place, and a warning where that accent had to change."""
    theme = THEMES[name]
    if accent is None:
        return theme, []
    wanted = accent.lstrip("#").upper()
    colours = dict(theme.colours)
    colours["accent1"] = _until(wanted, "000000", [colours["lt1"], colours["lt2"]])
    colours["accent6"] = _until(wanted, "FFFFFF", [colours["dk2"]])
    colours["hlink"] = colours["accent1"]
    warnings = []
    if colours["accent1"] != wanted:
        detail = f"#{wanted} is too light for text on white; text uses #{colours['accent1']}"
        warnings.append({"path": "$.accent", "kind": "accent", "detail": detail})
    return dataclasses.replace(theme, colours=colours), warnings


def _until(colour, towards, grounds):
    for step in range(21):
        mixed = mix(colour, towards, step / 20)
        if all(contrast(mixed, ground) >= 4.5 for ground in grounds):
            return mixed
    return towards


def east_asian_font(language):
    """The East Asian font of a language, empty where the viewer's own choice is best."""
    tags = {"ja": "Noto Sans CJK JP", "ko": "Noto Sans CJK KR", "zh": "Noto Sans CJK SC"}
    if language.lower() in ("zh-tw", "zh-hk", "zh-hant"):
        return "Noto Sans CJK TC"
    return tags.get(language.split("-")[0].lower(), "")


def theme_xml(theme, language):
    """The theme part of a presentation: twelve colours, two fonts, flat effects."""
    colours = "".join(f'<a:{slot}><a:srgbClr val="{rgb}"/></a:{slot}>' for slot, rgb in theme.colours.items())
    east = east_asian_font(language)

    def font(tag, face):
        return f'<a:{tag}><a:latin typeface="{face}"/><a:ea typeface="{east}"/><a:cs typeface=""/></a:{tag}>'

    fill = '<a:solidFill><a:schemeClr val="phClr"/></a:solidFill>'
    line = f'<a:ln w="9525" cap="flat" cmpd="sng" algn="ctr">{fill}<a:prstDash val="solid"/></a:ln>'
    effect = "<a:effectStyle><a:effectLst/></a:effectStyle>"
    out = io.StringIO()
    out.write('<?xml version="1.0" encoding="UTF-8" standalone="yes"?>')
    out.write('<a:theme xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" ' f'name="{theme.name}"><a:themeElements>')
    out.write(f'<a:clrScheme name="{theme.name}">{colours}</a:clrScheme>')
    out.write(f'<a:fontScheme name="{theme.name}">{font("majorFont", theme.major)}{font("minorFont", theme.minor)}</a:fontScheme>')
    out.write(f'<a:fmtScheme name="{theme.name}"><a:fillStyleLst>{fill * 3}</a:fillStyleLst><a:lnStyleLst>{line * 3}</a:lnStyleLst>')
    out.write(f"<a:effectStyleLst>{effect * 3}</a:effectStyleLst><a:bgFillStyleLst>{fill * 3}</a:bgFillStyleLst></a:fmtScheme>")
    out.write("</a:themeElements></a:theme>")
    return out.getvalue()
