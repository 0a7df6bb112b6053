#!/usr/bin/env bash
# Makes .venv-peers from local/requirements-peers.txt: what local/bench/peers.py compares with. Prints nothing when it is up to date.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

venv=.venv-peers
stamp=$venv/asrkd-stamp
wanted="$(cat local/requirements-peers.txt local/setup_peers.sh | sha256sum)
folder: $PWD"
if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" && -x $venv/bin/python ]]; then exit; fi

uv=$(local/uv.sh)
python=${ASRKD_BASE_PYTHON:-$(local/python.sh --download 3.11 3.10)}
echo "setup: making $venv with $python ($("$python" --version)): some seconds"
rm -rf "$venv"
"$uv" venv --quiet --python "$python" "$venv"
VIRTUAL_ENV=$PWD/$venv "$uv" pip install --quiet --require-hashes --only-binary :all: -r local/requirements-peers.txt
echo "$wanted" >"$stamp"
