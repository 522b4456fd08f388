"""Reads a spec and says what is wrong with it, by JSON path, with the value received and the way to mend it.

schema.json beside the scripts is the single description of the format; this file interprets the part of JSON Schema that
it uses. A spec that passes here can be built: layouts do not look for errors again.
"""

import difflib
import json
import re
from pathlib import Path

from . import outline
from .report import SpecError, problem, shown

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "schema.json"
SPEC_BYTES_MAX = 4 * 1024 * 1024
IMAGE_BYTES_MAX = 30 * 1024 * 1024
PROBLEMS_MAX = 20

JSON_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def load(path):
    """The deck of a .json spec or a .md outline, checked and complete."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError([problem("$", "missing", f"cannot read {path}: {error.strerror}", "Give the path of a spec that exists.")]) from error
    if len(raw) > SPEC_BYTES_MAX:
        raise SpecError([problem("$", "too_long", f"{path} has {len(raw)} bytes", f"A spec may have {SPEC_BYTES_MAX} bytes.")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([problem("$", "bad_json", f"{path} is not UTF-8 (byte {error.start})", "Save it as UTF-8.")]) from error
    if path.suffix.lower() in (".md", ".markdown"):
        deck = outline.parse(text)
    else:
        deck = parse_json(text, path)
    problems = validate(deck)
    if not problems:
        problems = semantic_problems(deck, path.parent)
    if problems:
        raise SpecError(problems[:PROBLEMS_MAX])
    return deck


def parse_json(text, path):
    """The text as JSON; an error names line and column and shows the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text.strip() else ""
        detail = f"{path} line {error.lineno} column {error.colno}: {error.msg}; the line is {shown(line.strip())}"
        fix = "Write valid JSON: double quotes, no trailing comma, no comment."
        raise SpecError([problem("$", "bad_json", detail, fix)]) from error
    except RecursionError as error:
        raise SpecError([problem("$", "bad_json", f"{path} is nested too deeply", "Follow the spec's format.")]) from error


def schema():
    """The schema as parsed JSON."""
    return json.loads(SCHEMA_FILE.read_text("utf-8"))


def validate(deck):
    """All problems of the deck against schema.json."""
    root = schema()
    found = []
    _validate(root, root, deck, "$", found)
    return found


def _validate(root, node, value, path, found):
    if len(found) >= PROBLEMS_MAX:
        return
    if "$ref" in node:
        target = root
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        _validate(root, target, value, path, found)
    elif "oneOf" in node:
        _validate_slide(root, node["oneOf"], value, path, found)
    elif "anyOf" in node:
        fitting = [n for n in node["anyOf"] if _is_type(value, n["type"])]
        if fitting:
            _validate(root, fitting[0], value, path, found)
        else:
            names = " or ".join(n["type"] for n in node["anyOf"])
            found.append(problem(path, "wrong_type", f"expected {names}, got {shown(value)}", f"Put a {names} at {path}."))
    elif "enum" in node:
        if value not in node["enum"]:
            found.append(_bad_choice(path, value, node["enum"]))
    elif "const" in node:
        pass  # the discriminator, already used to choose this node
    elif not _is_type(value, node["type"]):
        names = _names(node["type"])
        found.append(problem(path, "wrong_type", f"expected {names}, got {shown(value)}", f"Put a {names} at {path}."))
    elif isinstance(value, dict):
        _validate_object(root, node, value, path, found)
    elif isinstance(value, list):
        _validate_list(root, node, value, path, found)
    elif isinstance(value, str):
        _validate_string(node, value, path, found)


def _validate_slide(root, options, value, path, found):
    layouts = {n["properties"]["layout"]["const"]: n for n in options}
    if not isinstance(value, dict):
        found.append(problem(path, "wrong_type", f"expected a slide object, got {shown(value)}", f'Put {{"layout": …}} at {path}.'))
        return
    if "layout" not in value:
        fix = f"Add \"layout\" to {path}, one of: {', '.join(layouts)}."
        found.append(problem(f"{path}.layout", "missing", f"the slide has no layout; its fields are {shown(list(value))}", fix))
        return
    layout = value["layout"]
    if not isinstance(layout, str) or layout not in layouts:
        found.append(_bad_choice(f"{path}.layout", layout, list(layouts)))
        return
    _validate(root, layouts[layout], value, path, found)


def _validate_object(root, node, value, path, found):
    known = node["properties"]
    for key in node.get("required", []):
        if key not in value:
            found.append(problem(f"{path}.{key}", "missing", f"required, but {path} has only {shown(list(value))}", f"Add \"{key}\" to {path}."))
    for key, child in value.items():
        if key in known:
            _validate(root, known[key], child, f"{path}.{key}", found)
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f"Did you mean \"{near[0]}\"? " if near else ""
        detail = f"unknown field {shown(key)} with value {shown(child)}"
        found.append(problem(f"{path}.{key}", "unknown_field", detail, f"{hint}Known fields of {path}: {', '.join(known)}."))


def _validate_list(root, node, value, path, found):
    least, most = node.get("minItems", 0), node.get("maxItems")
    if len(value) < least:
        found.append(problem(path, "missing", f"has {len(value)} entries", f"Put at least {least} at {path}."))
    elif most is not None and len(value) > most:
        found.append(problem(path, "too_many", f"has {len(value)} entries", f"Keep at most {most} at {path}."))
    else:
        for index, child in enumerate(value):
            _validate(root, node["items"], child, f"{path}[{index}]", found)


def _validate_string(node, value, path, found):
    most = node.get("maxLength")
    if node.get("minLength") and not value.strip():
        found.append(problem(path, "missing", f"is empty: {shown(value)}", f"Write something at {path}, or leave the field out."))
    elif most is not None and len(value) > most:
        detail = f"has {len(value)} characters: {shown(value)}"
        found.append(problem(path, "too_long", detail, f"Shorten {path} to at most {most} characters.", max_chars=most))
    elif "pattern" in node and not re.search(node["pattern"], value):
        found.append(problem(path, "bad_value", f"got {shown(value)}", f"{path} is a {node.get('description', node['pattern'])}."))
    elif bad := re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", value):
        detail = f"holds the control character U+{ord(bad.group()):04X}: {shown(value)}"
        found.append(problem(path, "bad_value", detail, f"Remove it from {path}."))


def _bad_choice(path, value, choices):
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f"Did you mean \"{near[0]}\"? " if near else ""
    return problem(path, "bad_value", f"got {shown(value)}", f"{hint}Use one of: {', '.join(choices)}.")


def _is_type(value, names):
    names = [names] if isinstance(names, str) else names
    if isinstance(value, bool):
        return "boolean" in names
    if isinstance(value, float) and value - value != 0:  # NaN and infinity are not JSON, though Python reads them
        return False
    return any(isinstance(value, JSON_TYPES[name]) for name in names)


def _names(names):
    return names if isinstance(names, str) else " or ".join(names)


def semantic_problems(deck, folder):
    """What a schema cannot say: lengths that must agree, files that must be there."""
    found = []
    for index, slide in enumerate(deck["slides"]):
        path = f"$.slides[{index}]"
        if slide["layout"] == "chart":
            found += _chart_problems(slide["chart"], f"{path}.chart")
        elif slide["layout"] == "table":
            found += _table_problems(slide["table"], f"{path}.table")
        elif slide["layout"] == "image":
            found += _image_problems(slide["image"], f"{path}.image", folder)
    return found


def _chart_problems(chart, path):
    found = []
    wanted = len(chart["categories"])
    for index, series in enumerate(chart["series"]):
        got = len(series["values"])
        if got != wanted:
            fix = f"Give one number for each of the {wanted} categories (null where there is none)."
            found.append(problem(f"{path}.series[{index}].values", "bad_value", f"{got} values for {wanted} categories: {shown(series['values'])}", fix))
        elif all(v is None for v in series["values"]):
            found.append(problem(f"{path}.series[{index}].values", "bad_value", "holds no number", "Give numbers, or leave the series out."))
    if chart["type"] in ("pie", "doughnut"):
        if len(chart["series"]) != 1:
            fix = "Keep one series, or use \"column\" with \"stacked\": true."
            found.append(problem(f"{path}.series", "too_many", f"a {chart['type']} takes one series, got {len(chart['series'])}", fix))
        elif any((v or 0) < 0 for v in chart["series"][0]["values"]) or not any(chart["series"][0]["values"]):
            detail = f"parts of a whole cannot be negative or all zero: {shown(chart['series'][0]['values'])}"
            found.append(problem(f"{path}.series[0].values", "bad_value", detail, "Use a \"column\" chart."))
    if chart.get("stacked") and chart["type"] not in ("column", "bar", "area"):
        found.append(problem(f"{path}.stacked", "bad_value", f"a {chart['type']} chart cannot be stacked", "Use column, bar or area, or leave \"stacked\" out."))
    return found


def _table_problems(table, path):
    wanted = len(table["columns"])
    return [
        problem(f"{path}.rows[{i}]", "bad_value", f"{len(row)} cells for {wanted} columns: {shown(row)}", f"Give {wanted} cells (null leaves one empty).")
        for i, row in enumerate(table["rows"])
        if len(row) != wanted
    ]


def _image_problems(image, path, folder):
    file = (folder / image["path"]).absolute()
    fix = "Give the path of a PNG or JPEG, relative to the spec."
    if not file.is_file():
        return [problem(f"{path}.path", "missing", f"no file at {file} (got {shown(image['path'])})", fix)]
    if file.stat().st_size > IMAGE_BYTES_MAX:
        return [problem(f"{path}.path", "too_long", f"{file} has {file.stat().st_size} bytes", f"A picture may have {IMAGE_BYTES_MAX} bytes.")]
    from PIL import Image

    try:
        with Image.open(file) as picture:
            picture.verify()
            kind = picture.format
    except Exception as error:  # Pillow raises many kinds for a broken file
        return [problem(f"{path}.path", "bad_value", f"{file} is no picture: {error}", fix)]
    if kind not in ("PNG", "JPEG"):
        return [problem(f"{path}.path", "bad_value", f"{file} is {kind}", fix)]
    image["file"] = str(file)
    return []
