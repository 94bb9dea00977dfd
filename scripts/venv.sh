# shellcheck shell=bash
# Sourced by the other scripts. ensure_venv EXTRAS, from the repository root, makes .venv and installs this checkout into it.

python_too_old() { ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && ! python_too_old "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed, and none is on this machine." >&2
    echo "Debian 12 and Raspberry Pi OS (bookworm) carry it: sudo apt install python3 python3-venv" >&2
    echo "If it stands somewhere else, name it: PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

check_venv() {
    if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "error: this Python cannot make virtual environments. Install the missing part and run $0 again:" >&2
        echo "    sudo apt install python3-venv" >&2
        return 1
    fi
}

make_venv() {
    local python
    python=$(find_python) || return 1
    check_venv "$python" || return 1
    echo "Making .venv with $("$python" --version)" >&2
    "$python" -m venv --clear .venv
}

# The stamp names what was installed, from which pyproject.toml, and where this checkout stood: while it matches, pip is not called.
ensure_venv() {
    local extras=$1 stamp wanted
    stamp=.venv/.installed-$extras
    wanted="$(sha256sum <pyproject.toml) $PWD"
    # A half-made or moved environment is made anew.
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || python_too_old .venv/bin/python; then
        make_venv || return 1
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "Installing edge-agent with its extras $extras" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" || return 1
    echo "$wanted" >"$stamp"
}
