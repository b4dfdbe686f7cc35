#!/bin/sh
# Installs the system libraries that Qt and a virtual display need, by apt, when they are missing.
# On other systems it only says what to install.
set -eu

[ "$(uname -s)" = Linux ] || exit 0

packages="xvfb xauth libfontconfig1 libgl1 libegl1 libxkbcommon0 libdbus-1-3 libglib2.0-0 \
libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 \
libxcb-xkb1 libxkbcommon-x11-0 libxcb-randr0 libxcb-render0"

if ! command -v apt-get >/dev/null 2>&1; then
    command -v Xvfb >/dev/null 2>&1 || echo "Install a virtual display (Xvfb) and Qt's xcb libraries to run the GUI tests."
    exit 0
fi

missing=""
for package in $packages; do
    # Newer releases rename libraries (libglib2.0-0t64); either name will do.
    if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" &&
       ! dpkg-query -W -f='${Status}' "${package}t64" 2>/dev/null | grep -q "ok installed"; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0

echo "Installing system libraries for Qt and a virtual display:$missing"
run=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "Run as root or install sudo, then: apt-get install$missing"; exit 1; }
    run=sudo
fi
$run apt-get update -qq
DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $missing >/dev/null
