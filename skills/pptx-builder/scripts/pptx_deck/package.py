"""Writes the finished file: the same spec gives the same bytes, and a reader sees the old file or the new one, never half.

The zip's times, the workbooks' creation times and the document's dates are constants; SOURCE_DATE_EPOCH replaces the latter.
"""

import datetime
import io
import os
import re
import tempfile
import zipfile
from pathlib import Path

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
DEFAULT_EPOCH = 1767225600  # 2026-01-01T00:00:00Z
PRODUCER = "pptx-builder"


def stamp():
    """The date that the document claims."""
    return datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", DEFAULT_EPOCH)), datetime.timezone.utc)


def set_properties(prs, deck, language):
    """Title, author, language and dates of the document."""
    core = prs.core_properties
    core.title = deck["title"].strip()
    core.author = core.last_modified_by = deck.get("author", PRODUCER).strip()
    core.subject = deck.get("subtitle", "").strip()
    core.language = language
    core.keywords, core.comments, core.category = "", "", ""
    core.created = core.modified = stamp().replace(tzinfo=None)
    core.revision = 1
    for part in prs.part.package.iter_parts():
        if part.partname == "/docProps/app.xml":
            part._blob = (
                '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
                '<Properties xmlns="http://schemas.openxmlformats.org/officeDocument/2006/extended-properties">'
                f"<TotalTime>0</TotalTime><Application>{PRODUCER}</Application><PresentationFormat>Widescreen</PresentationFormat>"
                f"<Slides>{len(prs.slides)}</Slides></Properties>"
            ).encode()


def save(prs, target):
    """Writes the file, making its folder; returns its size."""
    raw = io.BytesIO()
    prs.save(raw)
    content = normalised(raw.getvalue())
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return len(content)


def normalised(content):
    """The zip with constant times, also inside embedded workbooks."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(".xlsx"):
                data = normalised(data)
            elif entry.filename == "docProps/core.xml":
                data = re.sub(rb"(<dcterms:(created|modified)[^>]*>)[^<]*", lambda m: m.group(1) + stamp().strftime("%Y-%m-%dT%H:%M:%SZ").encode(), data)
            info = zipfile.ZipInfo(entry.filename, ZIP_TIME)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            new.writestr(info, data, compresslevel=6)
    return out.getvalue()
