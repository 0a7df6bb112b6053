#!/usr/bin/env bash
# Prints the path of a working uv: the one on PATH if it is new enough, or one that pip puts, hash-checked, into .venv-uv.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

# Run it: a pyenv shim can be on PATH for a Python that has no uv, and one before 0.7 lacks options used here.
if on_path=$(command -v uv) && [[ $("$on_path" pip install --help 2>/dev/null) == *--torch-backend* ]]; then
    echo "$on_path"
    exit
fi

home=.venv-uv
stamp=$home/stamp
lock=$(sha256sum local/requirements-uv.txt)
if [[ ! -x $home/bin/uv || $(cat "$stamp" 2>/dev/null) != "$lock" ]]; then
    python=$(command -v python3 || command -v python) || {
        echo "setup: error: no Python on PATH: install python3 (\`apt-get install python3 python3-pip\`)" >&2
        exit 2
    }
    rm -rf "$home"
    echo "setup: no uv on PATH: putting one into $home" >&2
    pip=("$python" -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        # This Python has no pip: a virtual environment brings one, if Debian's python3-venv is installed.
        "$python" -m venv "$home/pip" >/dev/null 2>&1 || {
            rm -rf "$home"
            echo "setup: error: $python has neither pip nor venv: \`apt-get install python3-pip\` (or install uv)" >&2
            exit 2
        }
        pip=("$home/pip/bin/python" -m pip)
    fi
    # --target, because Debian's Python refuses packages of others (it is externally managed).
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "${pip[@]}" install --quiet --require-hashes --only-binary :all: --target "$home" \
        -r local/requirements-uv.txt >&2
    echo "$lock" >"$stamp"
fi
echo "$PWD/$home/bin/uv"
