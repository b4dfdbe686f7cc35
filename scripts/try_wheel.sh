#!/bin/sh
# Build the wheel, and use it in two fresh environments: without Qt by commands, with Qt by napari's manifest.
#   sh scripts/try_wheel.sh [FOLDER]      FOLDER is new or empty; a temporary one if not given
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
work=$(cd "$work" && pwd)
python=${PYTHON:-python3}

"$python" -m venv "$work/builder"
"$work/builder/bin/python" -m pip install --quiet -c "$root/constraints.txt" build
"$work/builder/bin/python" -m build --quiet --wheel --outdir "$work/dist" "$root"
wheel=$(ls "$work"/dist/*.whl)
echo "built $wheel"

export HOME="$work/home"
mkdir -p "$HOME"
cd "$HOME"

"$python" -m venv "$work/plain"
"$work/plain/bin/python" -m pip install --quiet --no-compile -c "$root/constraints.txt" torch "$wheel"
if "$work/plain/bin/python" -c "import qtpy" 2>/dev/null; then echo "Qt came along" >&2; exit 1; fi
"$work/plain/bin/histogan" --version
"$work/plain/bin/histogan" new first --classes "epidermis,dermis"
data=$("$work/plain/bin/python" -c "from napari_histogan.demo import DATA; print(DATA)")
case $data in "$root"*) echo "the checkout was used, not the wheel" >&2; exit 1;; esac
"$work/plain/bin/histogan" add-slides first --paths "$data/CMU-1-Small-Region.svs"
"$work/plain/bin/histogan" import-gan first --path "$data/generator"
"$work/plain/bin/histogan" sample-images first --count 4
"$work/plain/bin/histogan" verify first
echo "without Qt: works"

"$python" -m venv "$work/full"
"$work/full/bin/python" -m pip install --quiet --no-compile -c "$root/constraints.txt" torch "$wheel[all]"
"$work/full/bin/python" -m npe2 validate napari-histogan
QT_QPA_PLATFORM=offscreen "$work/full/bin/python" -c "
import napari_histogan.widgets.dock, sys
assert 'torch' not in sys.modules
"
"$work/full/bin/histogan" --version
echo "with Qt: works"
