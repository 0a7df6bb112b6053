#!/usr/bin/env bash
# Makes .venv, the environment of recipes and tests; prints nothing when it is up to date.
#
#   local/setup.sh                        torch 1.13.1 and k2 1.23.4, locked (local/requirements.txt), for Python 3.10,
#                                         or 3.11 (without torchaudio: one cross-check in the tests skips)
#   local/setup.sh --torch 2.13.0         that torch for the CPU and the k2 1.24 built for it, for Python 3.10 to 3.14
#   local/setup.sh --torch 2.13.0+cu130   the same for that CUDA
#   local/setup.sh --torch 2.13.0 --k2 k2-1.24.4….whl   a wheel of k2 that you have fetched
#   local/setup.sh --torch 1.13.1         the default again
#   ASRKD_BASE_PYTHON=PATH …              that interpreter
#
# Without --torch an environment stays with its torch and its interpreter. The new one is made in another folder and then
# moved, so where it cannot be made .venv is as it was. Needs git, make and Python with pip; about 4 GB on disk.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

default_torch=1.13.1
venv=.venv
new=.venv.partial
stamp=asrkd-stamp

fail() { # MESSAGE
    echo "setup: error: $1" >&2
    exit 2
}
recorded() { # KEY: what the stamp of .venv has for it
    sed -n "s/^$1: //p" "$venv/$stamp" 2>/dev/null || true
}

torch='' k2_wheel=''
while (($#)); do
    case $1 in
    --torch | --k2) [[ -n ${2:-} ]] || fail "$1: expected a value" ;;&
    --torch) torch=$2 ;;
    --k2) k2_wheel=$(realpath -- "$2") && [[ -f $k2_wheel ]] || fail "--k2 $2: expected a wheel of k2, found no such file" ;;
    *) fail "expected --torch VERSION or --k2 WHEEL, found $1" ;;
    esac
    shift 2
done
if [[ -z $torch ]]; then
    [[ -z $k2_wheel ]] || fail "--k2: expected --torch VERSION too"
    torch=$(recorded torch)
    k2_wheel=$(recorded k2)
    ASRKD_BASE_PYTHON=${ASRKD_BASE_PYTHON:-$(recorded interpreter)}
fi
torch=${torch:-$default_torch}
[[ $torch == "$default_torch" || $torch =~ ^2\.[0-9]+\.[0-9]+(\+(cpu|cu[0-9]+))?$ ]] ||
    fail "--torch: expected $default_torch or 2.x.y, 2.x.y+cpu, 2.x.y+cu130, found $torch"

# The stamp is written last, so an environment without the right one is unfinished or out of date.
wanted="$(cat local/requirements.txt pyproject.toml local/setup.sh local/install_torch.sh | sha256sum)
torch: $torch
k2: $k2_wheel
interpreter: ${ASRKD_BASE_PYTHON:-}
folder: $PWD"
if [[ $(cat "$venv/$stamp" 2>/dev/null) == "$wanted" && -x $venv/bin/python ]]; then exit; fi

uv=$(local/uv.sh)
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} # cuDNN is one file of 550 MB

install_locked() { # torch 1.13.1
    "$uv" pip install --require-hashes --only-binary :all: -r local/requirements.txt
}

no_k2() { # REASON
    local advice="run this where k2's own site is reached, or give a wheel from there with --k2"
    fail "no k2 for torch $torch: ${1#error: }: $advice; $venv is as it was (\`make setup\` needs the package index alone)"
}

# k2utils finds the wheel whose torch, CUDA and Python are those of the environment that it runs in. A stand-in with the
# same versions answers whether there is one before gigabytes of torch are fetched.
require_k2() {
    local cuda=None output
    if [[ $torch == *+cu* ]]; then
        cuda=${torch#*+cu}
        cuda="'${cuda%?}.${cuda: -1}'"
    fi
    mkdir "$new/stand-in"
    printf '__version__ = "%s"\nclass version:\n    cuda = %s\n    hip = None\n' "$torch" "$cuda" >"$new/stand-in/torch.py"
    output=$(PYTHONPATH=$new/stand-in timeout 100 "$new/bin/k2utils" install k2 --dry-run 2>&1) ||
        no_k2 "$(tail -n 1 <<<"${output:-no answer within 100 s}")"
    rm -r "$new/stand-in"
}

# Of any torch 2 and Python 3.10 to 3.14, so not from a lock: pyproject.toml's extras as the index has them today.
install_torch_2() {
    "$uv" pip install --quiet pip k2utils numpy
    [[ -n $k2_wheel ]] || require_k2
    local/install_torch.sh "$new" "$torch" || fail "no torch $torch to be had (above); $venv is as it was"
    "$uv" pip uninstall --quiet pip # k2utils then installs by uv, whose scripts can be moved
    if [[ -n $k2_wheel ]]; then
        "$uv" pip install --quiet "$k2_wheel" || no_k2 "$k2_wheel cannot be installed (above)"
        "$new/bin/python" -c 'import k2' || no_k2 "$k2_wheel does not import (above)"
    else
        PATH="$(dirname -- "$uv"):$PATH" "$new/bin/k2utils" install k2 || no_k2 "k2utils could not install it (above)"
    fi
    # torch and k2 are there, and torchaudio comes last: none of them is resolved.
    printf "%s ; python_version < '3'\n" torch k2 torchaudio >"$new/overrides"
    "$uv" pip install --override "$new/overrides" --only-binary :all: setuptools \
        -r pyproject.toml --extra train --extra decode --extra runtime --extra serve --extra export --extra report --extra cluster --extra kaldi --extra dev
    install_torchaudio
}

install_torchaudio() { # 2.11 and later run on every torch from 2.11 on
    local minor=${torch#2.} build=cpu range
    minor=${minor%%.*}
    [[ $torch != *+* ]] || build=${torch#*+}
    range=$( ((minor < 11)) && echo "==2.$minor.*" || echo ">=2.11")
    if ! "$uv" pip install --quiet --no-deps --torch-backend "$build" "torchaudio$range" 2>/dev/null ||
        ! "$new/bin/python" -c 'import torchaudio' 2>/dev/null; then
        "$uv" pip uninstall --quiet torchaudio
        echo "setup: without torchaudio, for which one cross-check in the tests skips: none of torch $torch to be had"
    fi
}

if [[ $torch == "$default_torch" ]]; then versions=(3.10 3.11); else versions=(3.12 3.13 3.11 3.14 3.10); fi
python=${ASRKD_BASE_PYTHON:-$(local/python.sh --download "${versions[@]}")}
echo "setup: making $venv with $python ($("$python" --version)) and torch $torch: a minute or two, mostly torch and its CUDA libraries"
rm -rf "$new"
trap 'rm -rf "$new"' EXIT
"$uv" venv --quiet --relocatable --python "$python" "$new"
export VIRTUAL_ENV=$PWD/$new
if [[ $torch == "$default_torch" ]]; then install_locked; else install_torch_2; fi
# No build environment of its own: setuptools is there.
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .

echo "$wanted" >"$new/$stamp"
rm -rf "$venv"
mv "$new" "$venv"
echo "setup: done; \`$venv/bin/asrkd doctor\` says what works"
