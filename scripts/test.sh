#!/usr/bin/env bash
# Sets up a virtual environment and runs every check: ruff, mypy, pytest. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/setup.sh" demo,dev

ruff check .
ruff format --check .
mypy
exec pytest "$@"
