# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: makes the virtual environment and installs edgecls in it, with the packages of
# constraints.txt. It does so again when setup.py or constraints.txt has changed.
# Usage: . scripts/setup.sh EXTRAS        e.g. demo,dev

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
venv=${EDGECLS_VENV:-.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
wanted="$(cat setup.py constraints.txt | sha256sum | cut -d' ' -f1) $1"

if [ "$(cat "$venv/.installed-$1" 2>/dev/null)" != "$wanted" ]; then
    started=$(date +%s)
    if ! ${PYTHON:-python3} -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
        echo "setup: Python 3.11, 3.12 or 3.13 is needed; name one with PYTHON=python3.12 bash $0" >&2
        exit 3
    fi
    [ -x "$venv/bin/python" ] || ${PYTHON:-python3} -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$1]"
    "$venv/bin/pip" check
    echo "$wanted" > "$venv/.installed-$1"
    echo "setup: $(($(date +%s) - started)) s"
fi
export PATH="$venv/bin:$PATH"
