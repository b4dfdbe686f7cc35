"""Print the lowest versions that pyproject.toml allows, as constraints for pip, for `make minimum`.

A bound of two parts, such as 2.6, stands for the newest of that line (2.6.*); a bound of three for itself.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("napari", "scale", "tensorboard")
"""Optional parts that the package itself imports."""


def lowest(requirements: list[str]) -> list[str]:
    """Return a constraint for each requirement.

    Raises
    ------
    ValueError
        If a requirement has another form than NAME>=VERSION.
    """
    pins = []
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+)>=(\d+(?:\.\d+)*)", requirement)
        if not found:
            raise ValueError(f"{requirement!r} does not say its lowest version as NAME>=VERSION")
        name, version = found.groups()
        pins.append(f"{name}=={version}" + (".*" if version.count(".") < 2 else ""))
    return pins


def main() -> int:
    """Print."""
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in EXTRAS for one in project["optional-dependencies"][extra]),
    ]
    print("\n".join(lowest(wanted)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
