#!/usr/bin/env bash
# Makes the Python environment of the tests, once per version of requirements.txt, and prints its interpreter.
#   PYTHON=$(tests/servers/venv.sh)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements="$here/requirements.txt"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/orrery"
venv="$cache/venv"
stamp="$venv/.requirements.sha256"
wanted=$(sha256sum < "$requirements")

mkdir -p "$cache"
# Tests run in parallel: one of them makes the environment, the others wait.
exec 9> "$cache/venv.lock"
flock 9

if [[ ! -x "$venv/bin/python" || "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]]; then
    echo "tests/servers/venv.sh: making $venv" >&2
    rm -rf "$venv"
    if ! python3 -m venv "$venv" >&2; then
        rm -rf "$venv"
        echo "tests/servers/venv.sh: python3 cannot make a virtual environment; install python3-venv (scripts/setup.sh test does)" >&2
        exit 1
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    printf '%s\n' "$wanted" > "$stamp"
fi
printf '%s\n' "$venv/bin/python"
