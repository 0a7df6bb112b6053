#!/usr/bin/env bash
# Makes .venv, the environment of recipes and tests, from local/requirements.txt; says nothing when it is up to date.
#
#   local/setup.sh             Python 3.10, or 3.11 (without torchaudio: one cross-check in the tests skips)
#   ASRKD_BASE_PYTHON=PATH …        that interpreter
#
# Needs git, make and Python with pip; about 3 GB on disk. Run again after an interruption: it starts afresh.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/asrkd-stamp

compiler=none
for name in c++ g++ clang++; do
    if command -v "$name" >/dev/null; then compiler=$name && break; fi
done

# The stamp is written last, so an environment without the right one is unfinished or out of date.
wanted="$(cat local/requirements.txt local/requirements-kenlm.txt pyproject.toml local/setup.sh | sha256sum)
compiler: $compiler
python: ${ASRKD_BASE_PYTHON:-found}
folder: $PWD"
if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then exit; fi

uv=$(local/uv.sh)
python=${ASRKD_BASE_PYTHON:-$(local/python.sh --download 3.10 3.11)}
echo "setup: making $venv with $python ($("$python" --version)): a minute or two, mostly torch and its CUDA libraries"
rm -rf "$venv"
"$uv" venv --quiet --python "$python" "$venv"
export VIRTUAL_ENV=$PWD/$venv PATH=$PWD/$venv/bin:$PATH
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} # cuDNN is one file of 550 MB

"$uv" pip install --require-hashes --only-binary :all: -r local/requirements.txt
# No build environment of its own: setuptools comes from the lock.
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .

if [[ $compiler == none ]]; then
    echo "setup: no C++ compiler: without kenlm, whose test will skip (\`apt-get install g++ make\`, then \`make setup\`)"
else
    echo "setup: building kenlm, a peer that tests check our language models against"
    log=$venv/kenlm.log
    if ! {
        "$uv" pip install --require-hashes --no-build-isolation --only-binary cmake -r local/requirements-kenlm.txt
    } >"$log" 2>&1; then
        echo "setup: kenlm did not build ($log says why; it needs make and Python's headers): its test will skip"
    fi
fi
echo "$wanted" >"$stamp"
echo "setup: done; \`$venv/bin/asrkd doctor\` says what works"
