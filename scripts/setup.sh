# Sourced by quickstart.sh and test.sh: makes the virtual environment and installs the kit, once per setup.py.
# Usage: . scripts/setup.sh EXTRAS        e.g. demo,dev

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${EDGECLS_VENV:-.venv}
wanted="$(sha256sum setup.py | cut -d' ' -f1) $1"

if [ "$(cat "$venv/.installed-$1" 2>/dev/null)" != "$wanted" ]; then
    started=$(date +%s)
    if ! ${PYTHON:-python3} -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "setup: Python 3.11 or newer is needed; name one with PYTHON=python3.12 bash $0" >&2
        exit 3
    fi
    [ -x "$venv/bin/python" ] || ${PYTHON:-python3} -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --editable ".[$1]"
    "$venv/bin/pip" check
    echo "$wanted" > "$venv/.installed-$1"
    echo "setup: $(($(date +%s) - started)) s"
fi
export PATH="$PWD/$venv/bin:$PATH"
