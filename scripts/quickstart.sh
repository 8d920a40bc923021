#!/usr/bin/env bash
# From nothing to a verified, benchmarked int8 TFLite model of real photographs, in a virtual environment of its own.
# Run it again after an interruption: finished work is kept.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "$0")/setup.sh" demo

edgecls train recipes/mv3_ssld.yaml
edgecls quantize
edgecls bench --device host --threads 1,2
echo "report: $(readlink -f runs/latest)/report.html"
echo "the command is $venv/bin/edgecls; to have it in this shell: . $venv/bin/activate"
