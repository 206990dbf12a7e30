#!/bin/sh
# Install the client packages of `make test-clients` outside the checkout and print where: DIR/venv and DIR/node_modules.
# The folder is named after what is asked for, so a changed list makes a new one and an unchanged one is kept.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
lists="tests/clients/requirements.txt tests/clients/package.json"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

cache=${OLM_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/olm}
key=$({ cat $lists; "$PYTHON" -V; node --version 2>/dev/null || echo "no node"; } | sha256sum | cut -c1-12)
dir="$cache/clients/$key"
mkdir -p "$dir"

# One at a time: two checkouts share the cache.
exec 9>"$dir/lock"
flock 9
if [ ! -e "$dir/complete" ]; then
    say "installing the clients under test into $dir (two minutes the first time)"
    "$PYTHON" -m venv --clear "$dir/venv" >&2
    "$dir/venv/bin/python" -m pip install -q --disable-pip-version-check -r tests/clients/requirements.txt >&2
    if command -v npm >/dev/null 2>&1; then
        cp tests/clients/package.json "$dir/"
        npm install --prefix "$dir" --no-package-lock --no-audit --no-fund --loglevel=error >&2
    else
        say "no npm here: the JavaScript clients are left out"
    fi
    : >"$dir/complete"
fi
printf '%s\n' "$dir"
