"""Make an archive of a project of today's layout: ``python tests/archives/make_archive.py OUT.zip``.

Run it once for each schema, before the schema changes, and commit the zip; archives are never made again.
The pictures in it are drawn by a program.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from workshop import build

LEFT_OUT = ("runs/", ".locks/", "studies/", "patch_classifiers/")


def main() -> None:
    """Build the project of the fault suite and pack it with its slides."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        build(home)
        with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
            for path in sorted([*(home / "project").rglob("*"), *(home / "slides").rglob("*")]):
                name = path.relative_to(home).as_posix()
                if path.is_file() and not name.removeprefix("project/").startswith(LEFT_OUT):
                    bundle.write(path, name)


if __name__ == "__main__":
    main()
