"""Start the command line by ``python -m napari_histogan``."""

import sys

from napari_histogan.cli import main

if __name__ == "__main__":
    sys.exit(main())
