"""Check the pages: links, spelling, and that each command works as it is written.

::

    python scripts/check_docs.py                   everything; commands take long (make check-docs)
    python scripts/check_docs.py --no-commands     links, spelling, and marks; seconds (part of make docs)
    python scripts/check_docs.py --only guide.md   one page

Blocks marked ``sh`` and ``python`` are run page by page, in a fresh folder with a fresh home. Files that the
pages name (slides, labels, outlines) are made by ``docs_material.py``. Comments above a block, hidden from
readers, say what differs::

    <!-- run before: COMMAND -->                                what a person did meanwhile, such as painting
    <!-- not run: REASON -->                                    the block
    <!-- not run "BEGINNING": REASON -->                        lines that begin so
    <!-- not run "BEGINNING": REASON; instead: COMMAND -->      something shorter in their place
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MATERIAL = ROOT / "scripts" / "docs_material.py"
WITH_COMMANDS = (
    "README.md", "docs/tutorial.md", "docs/guide.md", "docs/datasetgan.md", "docs/renal-segmentation.md",
    "docs/weak-supervision.md", "docs/label-super-resolution.md", "docs/patch-gan.md", "docs/demo.md",
    "docs/scale.md",
)  # fmt: skip
_BLOCK = re.compile(r"((?:^<!--(?:(?!-->).)*-->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r'<!-- (run before|not run)(?: "([^"]+)")?: (.*?) -->', re.DOTALL)
_UNMARKED = re.compile(r"^(?:    )(histogan|python|make|dask|torchrun) ", re.MULTILINE)
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """What of a page is run: a language, and lines."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page with what their comments change.

    Raises
    ------
    ValueError
        If a block with commands says no language, or a comment is not understood.
    """
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        comments, language, body = found.groups()
        line = text.count("\n", 0, found.start(3)) + 1
        notes = _COMMENT.findall(comments)
        if len(notes) != comments.count("<!--"):
            raise ValueError(f"{page.name}:{line}: a comment above the block is not understood")
        if language not in ("sh", "python"):
            if re.search(r"^histogan ", body, re.MULTILINE):
                raise ValueError(f"{page.name}:{line}: a block with commands is not marked sh")
            continue
        if any(kind == "not run" and not beginning for kind, beginning, _ in notes):
            continue
        for kind, beginning, rest in notes:
            if kind == "run before":
                yield Block("sh", rest, line)
            else:
                instead = rest.partition("; instead: ")[2]
                changed = re.sub(rf"^{re.escape(beginning)}.*$", instead, body, flags=re.MULTILINE)
                if changed == body:
                    raise ValueError(f"{page.name}:{line}: no line begins with {beginning!r}")
                body = changed
        yield Block(language, body, line)
    for found in _UNMARKED.finditer(text):
        if page.relative_to(ROOT).as_posix() in WITH_COMMANDS:
            line = text.count("\n", 0, found.start()) + 1
            raise ValueError(f"{page.name}:{line}: a command in a block that is not marked sh")


def run_page(page: Path) -> bool:
    """Run a page's blocks one after the other; tell and return whether all worked."""
    print(f"== {page.relative_to(ROOT)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="check-docs-") as folder:
        here, home = Path(folder, "work"), Path(folder, "home")
        here.mkdir()
        home.mkdir()
        binaries = str(Path(sys.executable).parent)
        environment = {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),  # the package beside these pages, whatever else is installed
            "DEMO_DATA": str(ROOT / "napari_histogan" / "demo_data"),
            "DOCS_MATERIAL": str(MATERIAL),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        }
        subprocess.run([sys.executable, str(MATERIAL), "files", "."], cwd=here, env=environment, check=True)
        for block in blocks(page):
            script = f"set -eEuo pipefail; trap 'echo \"FAILED: $BASH_COMMAND\" >&2' ERR\n{block.text}"
            started = time.monotonic()
            command = ["bash", "-c", script] if block.language == "sh" else [sys.executable, "-c", block.text]
            done = subprocess.run(
                command, cwd=here, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{page.name}:{block.line} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
                return False
            print(f"   line {block.line}: works ({time.monotonic() - started:.0f} s)", flush=True)
    return True


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as the site and the repository's host make them."""
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in _HEADING.findall(text)]
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower())) for heading in plain}


def broken_links(page: Path) -> list[str]:
    """Return what is wrong with a page's links to files and headings here."""
    text = page.read_text(encoding="utf-8")
    wrong = []
    for target in _LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists():
            wrong.append(f"{page.relative_to(ROOT)}: there is no {target}")
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            wrong.append(f"{page.relative_to(ROOT)}: there is no heading {target}")
    return wrong


def misspelled() -> int:
    """Let codespell read pages and sources; its settings are in pyproject.toml.  0 if it finds nothing."""
    pages = sorted(map(str, ROOT.glob("*.md")))
    code = ["examples", "napari_histogan", "scripts", "benchmarks", "tests"]
    speller = [sys.executable, "-m", "codespell_lib"]
    # Its dictionary lacks a word that we need often; a field of that name keeps its spelling.
    more = ["-D-", f"-D{Path(__file__).with_name('spelling.txt')}", "--ignore-regex=--unlabelled"]
    runs = [*speller, *code], [*speller, *more, "docs", *pages]
    return max(subprocess.run(run, cwd=ROOT, check=False).returncode for run in runs)


def main() -> int:
    """Check; 0 if all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-commands", action="store_true", help="links, spelling, and marks only")
    parser.add_argument("--only", metavar="PAGE", action="append", help="run the commands of this page only")
    options = parser.parse_args()
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    wrong = [problem for page in pages for problem in broken_links(page)]
    chosen = [ROOT / name for name in WITH_COMMANDS if not options.only or Path(name).name in options.only]
    try:
        count = sum(len(list(blocks(ROOT / name))) for name in WITH_COMMANDS)
    except ValueError as error:
        wrong.append(str(error))
    print("\n".join(wrong) if wrong else f"{len(pages)} pages: no broken link; {count} blocks of commands")
    well = not wrong and not misspelled()
    if options.no_commands or not (well or options.only):
        return int(not well)
    return int(not (all(map(run_page, chosen)) and well))


if __name__ == "__main__":
    sys.exit(main())
