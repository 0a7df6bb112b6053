#!/usr/bin/env bash
# Rewrites every locked requirements file of this folder: `make lock`. They have hashes and no address of an index.
#
#   requirements.txt        .venv         pyproject.toml + requirements.in, Python 3.10 and 3.11, wheels alone
#   requirements-kenlm.txt  .venv         requirements-kenlm.in, where there is a C++ compiler
#   requirements-train.txt  .venv-train   pyproject.toml + requirements-train.in, Python 3.11, without torch
#   requirements-docs.txt   .venv-docs    requirements-docs.in, Python 3.10 and 3.11
#   requirements-peers.txt  .venv-peers   requirements-peers.in, Python 3.10 and 3.11
#   requirements-uv.txt     .venv-uv      uv itself, where the machine has none
#
# Versions already locked stay. To move them: `make lock UPGRADE=--upgrade`.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."
uv=$(local/uv.sh)
tmp_dir=$(mktemp -d)
trap 'rm -rf "$tmp_dir"' EXIT

# k2's wheels for Python 3.10 and 3.11 both claim plain `py3`: only the hash tells an installer which file is its own.
k2_lines='k2==1.23.4 ; python_version == "3.10" --hash=sha256:1404589732fdb7f6f5bf62297a20dd73318b7b4f2e10dd52dc3d5b6669688a4c
k2==1.23.4 ; python_version == "3.11" --hash=sha256:5b5f709b12b9cd092b583984d0b7d940c9f898101259c998d68d1f4adefa48d4'

compile() { # NAME ARGUMENTS...: writes $tmp_dir/NAME, starting from the versions that local/NAME holds
    local name=$1
    shift
    if [[ -f local/$name ]]; then cp "local/$name" "$tmp_dir/$name"; fi
    "$uv" pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
        ${UPGRADE:-} "$@" --output-file "$tmp_dir/$name" >/dev/null
    sed -i '/^# The following packages were excluded/,$d' "$tmp_dir/$name"
    sed -i '1i # Written by `make lock`; do not edit.' "$tmp_dir/$name"
}

# --fork-strategy fewest: one version for both Pythons wherever there is one.
compile requirements.txt pyproject.toml local/requirements.in --extra train --extra decode --extra runtime --extra export --extra serve \
    --extra report --extra cluster --extra kaldi --extra dev \
    --universal --python-version 3.10 --fork-strategy fewest --only-binary :all: --no-emit-package k2
echo "$k2_lines" >>"$tmp_dir/requirements.txt"

compile requirements-kenlm.txt local/requirements-kenlm.in --universal --python-version 3.10 --only-binary cmake

# Torch 2 of the package index depends on gigabytes of CUDA; this override takes it out of the resolution.
echo "torch ; python_version < '3'" >"$tmp_dir/no-torch"
compile requirements-train.txt pyproject.toml local/requirements-train.in --extra train --extra report --override "$tmp_dir/no-torch" \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --only-binary :all:

for name in docs peers; do
    compile requirements-$name.txt local/requirements-$name.in --universal --python-version 3.10 --fork-strategy fewest --only-binary :all:
done

# --no-config: any Python may bring uv, not only those that pyproject.toml's [tool.uv] names.
echo "uv>=0.5" >"$tmp_dir/uv.in"
compile requirements-uv.txt "$tmp_dir/uv.in" --universal --python-version 3.8 --only-binary :all: --no-annotate --no-config

if grep -nE '://' "$tmp_dir"/*.txt; then
    echo "lock: error: an address in a lock file (above)" >&2
    exit 1
fi
mv "$tmp_dir"/requirements*.txt local/
