#!/bin/sh
# Install the programs that no Python package brings: ffmpeg, and Python's own venv where it is apart.
set -eu

complete() {
    command -v ffmpeg && command -v ffprobe && python3 -c 'import ensurepip, venv'
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if complete >/dev/null 2>&1; then
    exit 0
elif command -v apt-get >/dev/null; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends ffmpeg python3 python3-venv >/dev/null
elif command -v brew >/dev/null; then
    brew install ffmpeg python@3.12
fi

complete >/dev/null || {
    echo "Please install ffmpeg and Python 3.11 or later with its venv module, then try again." >&2
    exit 1
}
