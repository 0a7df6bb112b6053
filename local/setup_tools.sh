#!/usr/bin/env bash
# Makes .venv-NAME from local/requirements-NAME.txt, with neither torch nor k2. Prints nothing when it is up to date.
#
#   local/setup_tools.sh docs     what `make docs` builds the site with
#   local/setup_tools.sh peers    what local/bench/peers.py compares with
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

name=${1:-}
requirements=local/requirements-$name.txt
if [[ $name != docs && $name != peers ]]; then
    echo "setup: error: expected docs or peers, found '$name'" >&2
    exit 2
fi
venv=.venv-$name
stamp=$venv/asrkd-stamp
wanted="$(cat "$requirements" local/setup_tools.sh | sha256sum)
folder: $PWD"
if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" && -x $venv/bin/python ]]; then exit; fi

uv=$(local/uv.sh)
python=${ASRKD_BASE_PYTHON:-$(local/python.sh --download 3.11 3.10)}
echo "setup: making $venv with $python ($("$python" --version)): some seconds"
rm -rf "$venv"
"$uv" venv --quiet --python "$python" "$venv"
VIRTUAL_ENV=$PWD/$venv "$uv" pip install --quiet --require-hashes --only-binary :all: -r "$requirements"
echo "$wanted" >"$stamp"
