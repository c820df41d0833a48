#!/bin/sh
# Do what Dockerfile.serverless does up to the weights, in a place of its own, and open each door there:
# build/rehearse.sh DIRECTORY. Needs Python 3.11, ffmpeg and 9 GB of disk; no container engine, no GPU.
set -eu
place=${1:?"name a directory that is not there yet"}
# The lock is for this one alone.
interpreter=python3.11
mkdir "$place"
locked="install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps"

"$interpreter" -m venv "$place/python"
python=$place/python/bin/python
# shellcheck disable=SC2086 # words
"$python" -m pip $locked -r build/image.lock
"$python" build/check_packages.py

"$interpreter" -m venv "$place/builder"
# shellcheck disable=SC2086 # words
"$place/builder/bin/python" -m pip $locked -r build/wheel.lock
"$place/builder/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --no-index --wheel-dir "$place/wheels" .
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index "$place"/wheels/*.whl

mkdir "$place/weights"
"$python" build/build_record.py "$place/build.json" --lock build/image.lock --weights "$place/weights" \
    --version "$("$python" -c 'import adapters; print(adapters.__version__)')" \
    --git-commit "$(git rev-parse HEAD)"
cat "$place/build.json"

# What tries the doors is not shipped.
"$python" -m pip install --quiet --disable-pip-version-check --target "$place/trial" jsonschema
for door in http runpod local; do
    echo "$door"
    MUSETALK_ENGINE=preview PYTHONPATH=$place/trial "$python" build/smoke.py --door "$door"
done
