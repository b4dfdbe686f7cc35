"""Make README.md fit for a package index, when a wheel or a source archive is built (a hook of hatchling).

An index shows neither pictures nor pages that lie beside README.md. If pyproject.toml knows the repository
(``Repository`` under ``[project.urls]``), links become those of the release's tag there; else the text names
the files, which the source archive holds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

IN_ARCHIVE = "*Pages and pictures that are named here lie in the source archive of this release.*"
_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:)([^)#\s]+)(#[^)\s]*)?\)")


def for_an_index(text: str, repository: str | None, version: str) -> str:
    """Return README.md without links to what lies beside it.

    Parameters
    ----------
    text
        What the file holds.
    repository
        The repository's address, as hosts such as GitHub write it; None if it is not known.
    version
        Of the release, whose tag is ``vVERSION``.
    """

    def changed(link: re.Match[str]) -> str:
        picture, words, path, anchor = link.groups(default="")
        if repository:
            kind = "raw" if picture else "blob"
            return f"{picture}[{words}]({repository.rstrip('/')}/{kind}/v{version}/{path}{anchor})"
        if words.strip("/") == path.strip("/"):
            return f"`{words}`"
        return f"{words} (`{path}`)"

    text = _COMMENT.sub("", text)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    text = "".join(part if part.startswith("```") else _LINK.sub(changed, part) for part in parts)
    if repository:
        return text
    title, rest = text.split("\n", 1)
    return f"{title}\n\n{IN_ARCHIVE}\n{rest}"


class PackageReadme(MetadataHookInterface):
    """Gives the package its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description that an index shows."""
        root = Path(self.root)
        source = (root / "napari_histogan" / "__init__.py").read_text(encoding="utf-8")
        version = re.search(r'^__version__ = "(.+)"', source, re.MULTILINE)
        if version is None:
            raise ValueError("napari_histogan/__init__.py says no version")
        text = (root / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_an_index(text, repository, version.group(1)),
        }
