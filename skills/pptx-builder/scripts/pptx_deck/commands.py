"""The commands of deck.py: each reads its options, does one thing and prints one report."""

import sys
from pathlib import Path

from . import checks, package, rendering, report, slides, spec, template, theme
from .report import EXIT_OK, EXIT_PROBLEMS, SpecError, problem


def build(options):
    """Spec in, .pptx out; the geometry of the result is checked at once."""
    output = Path(options.output)
    if output.suffix.lower() != ".pptx":
        raise SpecError([problem("$", "bad_value", f"--output is {str(output)!r}", "Give a file name that ends in .pptx.")])
    deck = spec.load(options.spec)
    chosen, warnings = theme.choose(deck.get("theme", "harbor"), deck.get("accent"))
    language = deck.get("language", "en-US")
    prs = template.new_presentation(chosen, language)
    builder = slides.Builder(deck, chosen, prs)
    builder.build()
    package.set_properties(prs, deck, language)
    size = package.save(prs, output)
    result = checks.run(output, render=False)
    return _finish("build", output, result, warnings + builder.warnings, bytes=size)


def check(options):
    """Looks at a finished file, as text and, where LibreOffice is there, as it renders."""
    result = checks.run(Path(options.file), render=not options.no_render)
    return _finish("check", Path(options.file), result, result["warnings"], rendered=result["rendered"])


def render(options):
    """One PNG a slide."""
    images = rendering.to_png(Path(options.file), Path(options.png_dir), options.width)
    report.emit(sys.stdout, ok=True, command="render", file=str(Path(options.file).absolute()), slides=len(images), images=[str(i) for i in images])
    return EXIT_OK


def schema(_options):
    """The schema, as it stands."""
    sys.stdout.write(spec.SCHEMA_FILE.read_text("utf-8"))
    return EXIT_OK


def _finish(command, file, result, warnings, **more):
    report.emit(
        sys.stdout,
        ok=not result["problems"],
        command=command,
        file=str(file.absolute()),
        slides=len(result["outline"]),
        **more,
        outline=result["outline"],
        warnings=warnings,
        problems=result["problems"],
    )
    return EXIT_PROBLEMS if result["problems"] else EXIT_OK
