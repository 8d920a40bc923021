#!/usr/bin/env bash
# Builds edgecls_runner for 64-bit ARM Linux and puts libLiteRt.so, from the Python package ai-edge-litert, beside it.
# Usage: bash android_bench/runner/build.sh [FOLDER]; without FOLDER where `edgecls bench --device` looks for it.
# CC is the compiler (aarch64-linux-gnu-gcc, or cc on such a computer), PYTHON the one whose pip fetches the package.
set -euo pipefail

version=2.3.0 # the C interface may change with any release
python=${PYTHON:-python3}
compiler=${CC:-$([ "$(uname -m)" = aarch64 ] && echo cc || echo aarch64-linux-gnu-gcc)}
source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/edgecls_runner.c
cache=${EDGECLS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp/edgecls-$(id -u)}/.cache}/edgecls}
folder=${1:-$cache/benchmark_model/aarch64-linux}

if ! command -v "${compiler%% *}" > /dev/null; then
    echo "build: no compiler $compiler; Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2
    exit 3
fi
mkdir -p "$folder"
work=$(mktemp -d "$folder/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT

$compiler -O2 -Wall -Wextra -s -o "$work/edgecls_runner" "$source" -ldl
if [ "$(cat "$folder/litert-version" 2> /dev/null)" != "$version" ]; then
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform manylinux_2_27_aarch64 --implementation cp --python-version 3.11 \
        --dest "$work" "ai-edge-litert==$version"
    "$python" - "$work" << 'END'
import sys, zipfile
from pathlib import Path
work = Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    (work / "libLiteRt.so").write_bytes(wheel.read("ai_edge_litert/libLiteRt.so"))
END
    mv "$work/libLiteRt.so" "$folder/libLiteRt.so"
    echo "$version" > "$folder/litert-version"
fi
mv "$work/edgecls_runner" "$folder/edgecls_runner"
echo "$folder/edgecls_runner"
