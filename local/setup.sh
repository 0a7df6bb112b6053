#!/usr/bin/env bash
# Makes .venv, the environment of recipes and tests, from local/requirements.txt; says nothing when it is up to date.
#
#   local/setup.sh             Python 3.10, or 3.11 (without torchaudio: one cross-check in the tests skips)
#   ASRKD_BASE_PYTHON=PATH …   that interpreter
#
# Needs git, make and Python with pip; about 4 GB on disk. Run again after an interruption: it starts afresh.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

venv=.venv
stamp=$venv/asrkd-stamp

# The stamp is written last, so an environment without the right one is unfinished or out of date.
wanted="$(cat local/requirements.txt pyproject.toml local/setup.sh | sha256sum)
python: ${ASRKD_BASE_PYTHON:-found}
folder: $PWD"
if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" && -x $venv/bin/python ]]; then exit; fi

uv=$(local/uv.sh)
python=${ASRKD_BASE_PYTHON:-$(local/python.sh --download 3.10 3.11)}
echo "setup: making $venv with $python ($("$python" --version)): a minute or two, mostly torch and its CUDA libraries"
rm -rf "$venv"
"$uv" venv --quiet --python "$python" "$venv"
export VIRTUAL_ENV=$PWD/$venv
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} # cuDNN is one file of 550 MB

"$uv" pip install --require-hashes --only-binary :all: -r local/requirements.txt
# No build environment of its own: setuptools comes from the lock.
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .

echo "$wanted" >"$stamp"
echo "setup: done; \`$venv/bin/asrkd doctor\` says what works"
