#!/usr/bin/env bash
# Builds kenlm into .venv: the peer that tests check our language models against. Says nothing when it is there.
#
# It has no wheels, so it needs a C++ compiler, make and Python's headers. Where one is missing this says so and leaves
# with success: the tests that need kenlm skip visibly, everything else works.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

venv=$PWD/.venv
stamp=$venv/kenlm-stamp
log=$venv/kenlm.log
wanted=$(sha256sum local/requirements-kenlm.txt)
if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then exit; fi

without() { # REASON
    echo "setup: without kenlm, whose tests will skip: $1"
    exit 0
}
for program in c++ make; do
    command -v "$program" >/dev/null || without "no $program here (\`apt-get install g++ make\`)"
done
headers=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[[ -f $headers/Python.h ]] || without "no $headers/Python.h (Debian's package of it is python3-dev)"

echo "setup: building kenlm for the tests: a minute or two"
export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
"$(local/uv.sh)" pip install --require-hashes --no-build-isolation --only-binary cmake \
    -r local/requirements-kenlm.txt >"$log" 2>&1 || without "it did not build, .venv/kenlm.log says why"
echo "$wanted" >"$stamp"
