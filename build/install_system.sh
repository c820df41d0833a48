#!/bin/sh
# Install the programs that no Python package brings: ffmpeg, and Python's own venv where it is apart.
# PYTHON names the interpreter to use, by default python3.
set -eu
python=${PYTHON:-python3}

complete() {
    command -v ffmpeg && command -v ffprobe && "$python" -c 'import ensurepip, venv'
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! complete >/dev/null 2>&1; then
    if command -v apt-get >/dev/null; then
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends ffmpeg python3 python3-venv >/dev/null
    elif command -v brew >/dev/null; then
        brew install ffmpeg python3
    fi
fi

if ! complete >/dev/null 2>&1; then
    echo "Please install ffmpeg and Python with its venv module, then try again." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 ..." >&2
    exit 1
fi
