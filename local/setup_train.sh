#!/usr/bin/env bash
# Makes .venv-train: Python 3.11 and torch 2 for the CPU, no k2 and no lhotse. What `make test-train` runs in, and proof
# that training and distilling need neither. Says nothing when it is up to date.
#
#   ASRKD_TRAIN_TORCH=2.13.0+cu130 local/setup_train.sh    another build of torch, as pip is to find it
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

torch=2.13.0
venv=.venv-train
new=$venv.partial
stamp=$venv/asrkd-stamp
wanted="$(cat local/requirements-train.txt pyproject.toml local/setup_train.sh local/install_torch.sh | sha256sum)
torch: ${ASRKD_TRAIN_TORCH:-$torch for the CPU}
folder: $PWD"
made=$(cat "$stamp" 2>/dev/null || true)
# Without a build named, the one that is there will do.
[[ -n ${ASRKD_TRAIN_TORCH:-} ]] || wanted=$(sed "s/^torch: .*/$(grep -m 1 '^torch: ' <<<"$made" || echo "torch: $torch for the CPU")/" <<<"$wanted")
if [[ $made == "$wanted" && -x $venv/bin/python ]]; then exit; fi

uv=$(local/uv.sh)
python=$(local/python.sh --download 3.11)
echo "setup: making $venv with $python ($("$python" --version)): under a minute, mostly torch"
rm -rf "$new"
trap 'rm -rf "$new"' EXIT
"$uv" venv --quiet --relocatable --python "$python" "$new"
export VIRTUAL_ENV=$PWD/$new
"$uv" pip install --require-hashes --only-binary :all: -r local/requirements-train.txt

if ! local/install_torch.sh "$new" "${ASRKD_TRAIN_TORCH:-$torch}"; then
    echo "setup: error: no torch ${ASRKD_TRAIN_TORCH:-$torch} to be had (above); $venv is as it was" >&2
    exit 2
fi
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .

echo "$wanted" >"$new/asrkd-stamp"
rm -rf "$venv"
mv "$new" "$venv"
echo "setup: done; \`$venv/bin/asrkd doctor\` says what works"
