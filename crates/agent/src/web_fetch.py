# One page as text: fetched through the sandbox's own way out, turned into Markdown here, where what a page holds can do no harm.
# Arguments: the URL, bytes read of a page, characters shown of its text.
import io
import sys

import requests
from markitdown import MarkItDown, StreamInfo

url, bytes_max, characters_max = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    with requests.get(url, stream=True, timeout=(30, 60), headers={"User-Agent": "palisade-agent", "Accept": "text/html, text/*, */*"}) as answer:
        kind = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
        body, cut = b"", False
        for chunk in answer.iter_content(65536):
            body += chunk
            if len(body) > bytes_max:
                body, cut = body[:bytes_max], True
                break
except requests.RequestException as error:
    sys.exit(f"{url} could not be fetched: {error}")
refusal = answer.headers.get("Proxy-Status", "")
print(f"{answer.url} · {answer.status_code} {answer.reason} · {kind or 'no content type'} · {len(body)} bytes{' (cut)' if cut else ''}\n")
if kind in ("", "text/plain", "text/markdown", "text/csv") or kind.endswith("json"):
    text = body.decode(answer.encoding or "utf-8", "replace")
else:
    try:
        about = StreamInfo(mimetype=kind, url=answer.url, charset=answer.encoding if kind.startswith("text/") else None)
        text = MarkItDown(enable_plugins=False).convert_stream(io.BytesIO(body), stream_info=about).text_content
    except Exception as error:
        sys.exit(f"What came back is no text that can be read here ({type(error).__name__}). Fetch it with curl into a file instead.")
print(text[:characters_max])
if len(text) > characters_max:
    print(f"\n[{len(text) - characters_max} more characters are not shown; fetch the page with curl into a file to search it]")
if refusal.startswith("palisade") or answer.status_code >= 400:
    sys.exit(1)
