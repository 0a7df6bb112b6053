#!/usr/bin/env bash
# Installs torch into an environment that has pip: install_torch.sh VENV VERSION[+BUILD].
#
# BUILD is cpu (the default) or cu and a CUDA version, as in 2.13.0+cu130. First what pip knows, which looks where the
# machine's pip configuration points, then PyTorch's own index by uv. uv installs either, so that VENV can be moved.
set -euo pipefail
unset CDPATH
venv=$(realpath -- "$1")
version=${2%%+*}
build=${2#"$version"}
build=${build#+}
build=${build:-cpu}
cd -- "$(dirname -- "$0")/.."
uv=$(local/uv.sh)
export VIRTUAL_ENV=$venv
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT

by_pip() { # VERSION
    "$venv/bin/python" -m pip download --quiet --no-deps --only-binary :all: --dest "$fetched" "torch==$1" &&
        "$uv" pip install --quiet "$fetched"/torch-*.whl
}
if by_pip "$version+$build" 2>/dev/null; then exit; fi
if "$uv" pip install --torch-backend "$build" "torch==$version"; then exit; fi
if [[ $build != cpu ]]; then exit 2; fi
# The plain package is built for CUDA, runs on a CPU too, and brings gigabytes.
echo "setup: no CPU build of torch $version to be had: taking the plain one, several GB"
by_pip "$version"
