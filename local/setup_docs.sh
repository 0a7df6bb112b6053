#!/usr/bin/env bash
# Makes .venv-docs from local/requirements-docs.txt: what `make docs` builds the site with. Neither torch nor k2. Prints nothing when it is up to date.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

venv=.venv-docs
stamp=$venv/asrkd-stamp
wanted="$(cat local/requirements-docs.txt local/setup_docs.sh | sha256sum)
folder: $PWD"
if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" && -x $venv/bin/python ]]; then exit; fi

uv=$(local/uv.sh)
python=${ASRKD_BASE_PYTHON:-$(local/python.sh --download 3.11 3.10)}
echo "setup: making $venv with $python ($("$python" --version)): some seconds"
rm -rf "$venv"
"$uv" venv --quiet --python "$python" "$venv"
VIRTUAL_ENV=$PWD/$venv "$uv" pip install --quiet --require-hashes --only-binary :all: -r local/requirements-docs.txt
echo "$wanted" >"$stamp"
