"""Turn what docstrings say in reStructuredText into Markdown, for the pages of the API (see mkdocs.yml).

Three things differ: references such as ``:func:`~module.name```, simple tables, and ``::`` before a block.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_REFERENCE = re.compile(r":(?:func|mod|class|meth|data|attr|exc|mod):`~?([^`]+)`")
_RULE = re.compile(r"^\s*=+(?:\s+=+)+\s*$")


def as_markdown(text: str) -> str:
    """Return a docstring with references as code, tables as they look, and blocks indented."""
    text = _REFERENCE.sub(lambda found: f"`{found.group(1).lstrip('.')}`", text)
    out: list[str] = []
    rules = 0
    for line in text.splitlines():
        if _RULE.match(line):
            rules += 1
            if rules == 1 and out and out[-1].strip():
                out.append("")
            out.append("    " + line)
            rules %= 3  # above the head, below it, and at the end
            if not rules:
                out.append("")
        elif rules:
            out.append("    " + line)
        elif line.strip() == "::":
            continue
        else:
            out.append(line[:-1] if line.endswith("::") else line)
    return "\n".join(out)


class MarkdownDocstrings(griffe.Extension):  # type: ignore[misc, unused-ignore]
    """Changes each docstring as it is loaded."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function, or attribute."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
