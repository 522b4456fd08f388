"""Turns a Markdown outline into the same spec that JSON gives. It guesses nothing: a block that it cannot place is an error
with its line number.
"""

import re

from .report import SpecError, problem, shown

META_KEYS = ("title", "subtitle", "author", "date", "language", "theme", "accent", "footer")
FIELD = re.compile(r"^(Notes|Takeaway|Source|Unit|Kicker|Chart|Contact)\s*:\s*(.*)$", re.IGNORECASE)
BULLET = re.compile(r"^(\s*)(?:[-*+]|\d{1,3}[.)])\s+(.*)$")
TABLE_RULE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
NUMBER = re.compile(r"^[-+−]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?$")


def parse(text):
    """The spec of an outline."""
    lines = text.splitlines()
    meta, first = _front_matter(lines)
    deck, blocks = dict(meta), _blocks(lines, first)
    slides = []
    for block in blocks:
        slides.append(_slide(block, is_first=not slides))
    if slides and slides[0]["layout"] == "title":
        deck.setdefault("title", slides[0].get("title", ""))
        if "subtitle" in slides[0]:
            deck.setdefault("subtitle", slides[0]["subtitle"])
    elif "title" in deck:
        slides.insert(0, {"layout": "title"})
    deck["slides"] = slides
    return deck


def _error(line, detail, fix):
    return SpecError([problem(f"line {line}", "bad_value", detail, fix)])


def _front_matter(lines):
    if not lines or lines[0].strip() != "---":
        return {}, 0
    meta = {}
    for index, line in enumerate(lines[1:], start=1):
        if line.strip() == "---":
            return meta, index + 1
        if not line.strip():
            continue
        key, colon, value = line.partition(":")
        key = key.strip().lower()
        if not colon or key not in META_KEYS:
            raise _error(index + 1, f"got {shown(line)}", f"Write \"key: value\" with one of: {', '.join(META_KEYS)}.")
        meta[key] = value.strip().strip("\"'")
    raise _error(1, "the front matter has no closing ---", "Close it with a line of ---.")


def _blocks(lines, first):
    """One block a heading of level 1 or 2, or a free quote: (kind, heading, line number, body lines)."""
    blocks = []
    for index in range(first, len(lines)):
        line = lines[index].rstrip()
        heading = re.match(r"^(#{1,2})\s+(.*?)\s*#*$", line)
        if heading:
            blocks.append({"level": len(heading.group(1)), "heading": heading.group(2), "line": index + 1, "body": []})
        elif line.startswith(">") and not _in_quote(blocks):
            blocks.append({"level": 0, "heading": "", "line": index + 1, "body": [(index + 1, line)]})
        elif blocks:
            blocks[-1]["body"].append((index + 1, line))
        elif line.strip():
            raise _error(index + 1, f"text before the first heading: {shown(line)}", "Begin with \"# Title of the deck\".")
    return blocks


def _in_quote(blocks):
    body = blocks[-1]["body"] if blocks else []
    return bool(body) and body[-1][1].startswith(">")


def _slide(block, is_first):
    body, fields = _take_fields(block["body"])
    extra = {k: fields[k] for k in ("notes", "source", "takeaway", "kicker", "contact") if k in fields}
    if "source" in extra:
        extra["source"] = f"Source: {extra['source']}"
    title = block["heading"]
    if block["level"] == 0:
        return {"layout": "quote", **_quote(body), **extra}
    prose = [line for _, line in body if line.strip()]
    if block["level"] == 1:
        for number, line in body:
            if BULLET.match(line) or line.startswith(("|", "###")):
                raise _error(number, f"content under a \"# \" heading: {shown(line)}", "Put it under a \"## \" heading.")
        slide = {"layout": "title" if is_first else "section", "title": title}
        return {**slide, **({"subtitle": " ".join(prose)} if prose else {}), **extra}
    if title.strip().lower() in ("agenda", "contents") and not any(BULLET.match(x) for x in prose):
        return {"layout": "agenda", "title": title, **extra}
    if any(line.startswith("### ") for line in prose):
        return {"layout": "two_column", "title": title, "columns": _columns(body), **extra}
    if any(TABLE_RULE.match(line) for line in prose):
        return {**_table(title, body, fields), **extra}
    bullets = _bullets(body)
    if "contact" in fields:
        return {"layout": "closing", "title": title, **({"bullets": bullets} if bullets else {}), **extra}
    if not bullets:
        raise _error(block["line"], f"the slide {shown(title)} is empty", "Add \"- bullets\", a table or \"### \" columns below it.")
    return {"layout": "bullets", "title": title, "bullets": bullets, **extra}


def _take_fields(body):
    """Splits `Notes:` and the like from the content; notes go on until a blank line or another field."""
    rest, fields, open_key = [], {}, None
    for number, line in body:
        match = FIELD.match(line)
        if match:
            key = match.group(1).lower()
            fields[key] = match.group(2).strip()
            open_key = key if key == "notes" else None
        elif open_key and line.strip() and not BULLET.match(line) and not line.startswith(("|", "#", ">")):
            fields[open_key] = f"{fields[open_key]} {line.strip()}".strip()
        else:
            open_key = None
            rest.append((number, line))
    return rest, fields


def _bullets(body):
    bullets = []
    for _number, line in body:
        match = BULLET.match(line)
        if match and len(match.group(1).expandtabs(4)) >= 2 and bullets:
            if isinstance(bullets[-1], str):
                bullets[-1] = {"text": bullets[-1], "sub": []}
            bullets[-1]["sub"].append(match.group(2).strip())
        elif match:
            bullets.append(match.group(2).strip())
        elif line.strip() and line.startswith((" ", "\t")) and bullets:
            _append_to_last(bullets, line.strip())
        elif line.strip():
            bullets.append(line.strip())
    return bullets


def _append_to_last(bullets, text):
    if isinstance(bullets[-1], str):
        bullets[-1] += " " + text
    else:
        bullets[-1]["sub"][-1] += " " + text


def _columns(body):
    columns, lines = [], []
    for number, line in body:
        if line.startswith("### "):
            columns.append({"heading": line[4:].strip(), "bullets": []})
            lines.append([])
        elif lines:
            lines[-1].append((number, line))
        elif line.strip():
            raise _error(number, f"text before the first column: {shown(line)}", "Put it under a \"### \" heading.")
    for column, part in zip(columns, lines):
        column["bullets"] = _bullets(part)
    return columns


def _table(title, body, fields):
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for _, line in body if "|" in line and not TABLE_RULE.match(line)]
    header, cells = rows[0], rows[1:]
    if "chart" not in fields:
        return {"layout": "table", "title": title, "table": {"columns": header, "rows": [[_number(c) for c in row] for row in cells]}}
    words = fields["chart"].lower().split()
    chart = {"type": words[0] if words else "", "categories": [row[0] for row in cells]}
    chart["series"] = [
        {"name": name, "values": [_number(row[i]) if i < len(row) and row[i] else None for row in cells]}
        for i, name in enumerate(header)
        if i
    ]
    chart.update({word: True for word in words[1:]})
    if "unit" in fields:
        chart["unit"] = fields["unit"]
    return {"layout": "chart", "title": title, "chart": chart}


def _number(cell):
    plain = cell.replace(",", "").replace("−", "-")
    if not NUMBER.match(cell) or not any(c.isdigit() for c in cell):
        return cell
    return float(plain) if "." in plain else int(plain)


def _quote(body):
    text = " ".join(line.lstrip("> ").strip() for _, line in body if line.startswith(">")).strip()
    said, dash, by = text.rpartition(" — ")
    if not dash:
        said, dash, by = text.rpartition(" -- ")
    return {"quote": said.strip(' "“”'), "by": by.strip()} if dash else {"quote": text.strip(' "“”')}
