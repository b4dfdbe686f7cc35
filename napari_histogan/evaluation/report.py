"""A report in one HTML file: text, tables, and figures that travel with it.

::

    Section("How good", ("The slide was not seen in training.", Table(...), Figure(...)))

The file needs no network and reads well on light and dark screens.  Each figure is also
written beside it as a PNG, for talks and papers.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from napari_histogan.errors import LabelError, StorageError
from napari_histogan.evaluation.figures import panels_in_rows, sample_sheet, slide_overlay, with_legend
from napari_histogan.labels.annotation import write_file

__all__ = [
    "Cell",
    "Figure",
    "Section",
    "Table",
    "interval",
    "panels_in_rows",
    "sample_sheet",
    "slide_overlay",
    "with_legend",
    "write_report",
]

Cell = str | int | float | None

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MISSING = "\N{EN DASH}"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fdfdfc; --faint: #67676c; --line: #d9d9de;
  --stripe: #f3f3f1; --accent: #1f5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17181b; --faint: #a0a0a8;
  --line: #3a3b41; --stripe: #202227; --accent: #86b8f2; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 44rem; margin: .6rem 0; }
.lead { color: var(--faint); }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
figcaption, caption { color: var(--faint); font-size: .9rem; max-width: 44rem; text-align: left; }
figcaption { margin-top: .4rem; }
caption { caption-side: bottom; padding-top: .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; padding-left: .3rem; }
tbody th { font-weight: 400; }
thead th { border-bottom: 2px solid var(--accent); font-weight: 600; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
""".strip()


@dataclass(frozen=True)
class Figure:
    """A picture with a caption.

    Parameters
    ----------
    name
        Of its PNG, without the suffix: small letters, digits, and hyphens.
    image
        RGB.
    caption
        What is to be seen, in plain words; also what a screen reader says.
    """

    name: str
    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows.

    Parameters
    ----------
    header
        One heading a column.
    rows
        One cell a column.  Fractional numbers get three decimals; None and NaN, a dash.
    caption
        What the figures mean; may be empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs (plain strings), tables, and figures."""

    title: str
    content: Sequence[str | Table | Figure]


def interval(value: float, low: float, high: float) -> str:
    """Return a figure with its confidence interval, such as ``0.912 (0.887 to 0.931)``."""
    return f"{_cell(value)} ({_cell(low)} to {_cell(high)})"


def write_report(path: Path | str, title: str, sections: Sequence[Section], lead: str = "") -> Path:
    """Write a report as one HTML file, and its figures as PNG beside it.

    Parameters
    ----------
    path
        The ``.html`` file; its folder is made if missing.
    title
        Heading of the page.
    sections
        What it holds, in order.
    lead
        One paragraph below the title; may be empty.

    Returns
    -------
    Path
        Of the HTML file.

    Raises
    ------
    LabelError
        If a table's rows differ in length, or two figures share a name; nothing is
        written then.
    StorageError
        If the disk is full or read-only.
    """
    path = Path(path)
    figures: dict[str, bytes] = {}
    body = [f"<h1>{html.escape(title)}</h1>"]
    if lead:
        body.append(f'<p class="lead">{html.escape(lead)}</p>')
    for section in sections:
        body.append(f"<section><h2>{html.escape(section.title)}</h2>")
        body += [_block(part, figures) for part in section.content]
        body.append("</section>")
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
    for name, data in figures.items():
        write_file(path.with_name(f"{name}.png"), data)
    write_file(path, page.encode())
    return path


def _block(part: str | Table | Figure, figures: dict[str, bytes]) -> str:
    """Return one part as HTML; figures are added to ``figures``."""
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Table):
        return _table(part)
    if not _NAME.fullmatch(part.name) or part.name in figures:
        raise LabelError(
            f"a figure has the name {part.name!r}", "small letters, digits, and hyphens, each name once"
        )
    buffer = io.BytesIO()
    part.image.save(buffer, "PNG", optimize=True)
    figures[part.name] = buffer.getvalue()
    data = base64.b64encode(figures[part.name]).decode()
    caption = html.escape(part.caption)
    size = f'width="{part.image.width}" height="{part.image.height}"'
    return (
        f'<figure><img src="data:image/png;base64,{data}" {size} alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    """Return a table as HTML."""
    for number, row in enumerate(table.rows, 1):
        if len(row) != len(table.header):
            raise LabelError(
                f"row {number} of a table has {len(row)} cells", f"{len(table.header)}, as the header"
            )
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.header)
    rows = []
    for row in table.rows:
        first, *rest = (html.escape(_cell(cell)) for cell in row)
        rows.append(f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{c}</td>" for c in rest) + "</tr>")
    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: Cell) -> str:
    """Return a cell's text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return _MISSING
    return f"{value:.3f}" if isinstance(value, float) else str(value)
