"""What a command says when it is done: one JSON object, and the errors that become part of it.

Nothing else may print to stdout: a caller parses all of it.
"""

import json

EXIT_OK, EXIT_PROBLEMS, EXIT_BAD_SPEC, EXIT_MISSING_TOOL = 0, 1, 2, 3


class SpecError(Exception):
    """The spec or an argument is wrong; nothing was written."""

    def __init__(self, problems):
        super().__init__(problems[0]["detail"])
        self.problems = problems


class MissingTool(Exception):
    """A program or package of the runtime is not on this machine."""


def problem(path, kind, detail, fix, **more):
    """A problem of the spec at a JSON path."""
    return {"path": path, "kind": kind, "detail": detail, "fix": fix, **more}


def shown(value, limit=80):
    """A received value as JSON, short enough for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def emit(stream, **fields):
    """Write the report. `ok` comes first, lists last, one entry a line, so that a cut-off output still tells the result."""
    head = {k: v for k, v in fields.items() if not isinstance(v, list)}
    lists = {k: v for k, v in fields.items() if isinstance(v, list)}
    lines = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
    for key, entries in lists.items():
        if entries:
            inner = ",\n".join("    " + json.dumps(e, ensure_ascii=False) for e in entries)
            lines.append(f"  {json.dumps(key)}: [\n{inner}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: []")
    stream.write("{\n" + ",\n".join(lines) + "\n}\n")
    stream.flush()
