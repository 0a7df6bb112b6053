#!/usr/bin/env bash
# Fetches the corpus of recipes/prompts, Debian's packages of the Asterisk prompts in English (speech and transcripts),
# and a general language model of English (pocketsphinx-en-us):
#
#   local/fetch_prompts.sh [OUT_DIR]       default data/prompts
#
# Downloads with apt and unpacks without installing; apt's lists go to a folder next to OUT_DIR, so root is not needed.
# OUT_DIR appears whole or not at all, and nothing is done when it is there.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

packages=(asterisk-core-sounds-en-wav asterisk-core-sounds-en pocketsphinx-en-us)
model=usr/share/pocketsphinx/model/en-us/en-us.lm.bin
out=${1:-data/prompts}
tmp_dir=$out.partial

fail() { # MESSAGE: one line, exit code 2
    echo "fetch_prompts: error: $1" >&2
    exit 2
}

if [[ -d $out && -f $out/$model ]]; then exit; fi
if [[ -e $out ]]; then
    echo "fetch_prompts: $out has no $model: fetching all of it again"
fi
for program in apt-get dpkg-deb; do
    command -v "$program" >/dev/null ||
        fail "no $program here: on a Debian or Ubuntu machine unpack ${packages[*]} with dpkg-deb -x into one folder, and give it with --corpus-dir"
done

rm -rf "$tmp_dir"
trap 'rm -rf "$tmp_dir"' EXIT
mkdir -p "$tmp_dir/debs"
apt_dir=$(realpath "$tmp_dir")/apt
mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
# Lists and caches of our own: needs no root, and leaves the machine's as they were.
apt_options=(-o "Dir::State::Lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache"
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3)

echo "fetch_prompts: asking the distribution for ${packages[*]} (42 MB, and its package lists)"
apt-get -qq "${apt_options[@]}" update || fail "apt-get update failed (above)"
(cd "$tmp_dir/debs" && apt-get -q "${apt_options[@]}" download "${packages[@]}") ||
    fail "apt-get download ${packages[*]} failed (above); on Ubuntu they are in universe"
mkdir "$tmp_dir/tree"
for deb in "$tmp_dir"/debs/*.deb; do
    dpkg-deb -x "$deb" "$tmp_dir/tree" || fail "could not unpack $(basename "$deb")"
done
prompts=$(find "$tmp_dir/tree" -name '*.wav' | wc -l)
((prompts > 0)) || fail "no .wav in ${packages[0]}"
find "$tmp_dir/tree" -name 'core-sounds-en.txt*' | grep -q . || fail "no core-sounds-en.txt in ${packages[1]}"
[[ -f $tmp_dir/tree/$model ]] || fail "no $model in ${packages[2]}"

mkdir -p "$(dirname "$out")"
sync "$tmp_dir/tree"
[[ ! -e $out ]] || mv "$out" "$tmp_dir/before"
mv "$tmp_dir/tree" "$out"
echo "fetch_prompts: $prompts prompts in $out"
