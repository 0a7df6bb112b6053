#!/usr/bin/env bash
# Every command on what `make demo` left, the exported model in an environment that has the runtime alone:
#
#   local/use_demo.sh [RUN [MODEL]]        default: exp/prompts, and RUN_model
#
# Fails where a command fails or gives nothing. What it writes goes to a new folder, which is deleted.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

run=${1:-exp/prompts}
model=${2:-${run}_model}
out=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server"; rm -rf -- "$out"' EXIT

title() { echo "== $*"; }
full() { # FILE...: each has something in it
    for file; do [[ -s $file ]] || { echo "$file: expected content, found none" >&2; exit 1; }; done
}
with_run() { .venv/bin/asrkd "$@"; }                      # torch and k2
runtime() { env -u PYTHONPATH "$out/env/bin/$1" "${@:2}"; } # neither

title "environment of the runtime"
python3 -m venv "$out/env"
mkdir "$out/src" # the files that the Dockerfile copies; pip would leave build/ in the clone
cp -r pyproject.toml README.md LICENSE asrkd "$out/src"
"$out/env/bin/pip" install --quiet --disable-pip-version-check "$out/src[runtime,serve]"
if runtime python -c 'import torch' 2>/dev/null; then echo "expected no torch, found it" >&2; exit 1; fi
du -sh "$out/env" | cut -f 1

# The test prompt with the most words.
.venv/bin/python - "$run" "$out" <<'EOF'
import sys
from pathlib import Path
from asrkd.data.manifests import load_split
run, out = map(Path, sys.argv[1:])
test = load_split(run / "manifests" / "test")
longest = max(test.supervisions, key=lambda one: (len(one.text.split()), one.id))
(out / "audio").write_text(test.recordings[longest.recording_id].sources[0].source)
(out / "text").write_text(longest.text + "\n")
test.recordings.to_file(out / "recordings.jsonl")
test.supervisions.to_file(out / "supervisions.jsonl")
EOF
audio=$(cat "$out/audio")
name=$(basename "${audio%.*}")

title transcribe
runtime asrkd transcribe "$model" "$audio" --format txt,json,srt,vtt,ctm,trn,stm --output-dir "$out/words"
full "$out/words/$name".{txt,json,srt,vtt,ctm,trn,stm}
cat "$out/text" "$out/words/$name.txt"
runtime asrkd transcribe "$model" - <"$audio" >"$out/from_stdin"
full "$out/from_stdin"

title align
runtime asrkd align "$model" "$audio" "$out/text" --format ctm,textgrid,json --output-dir "$out/aligned"
full "$out/aligned/$name".{ctm,phones.ctm,senones.ctm,TextGrid,json}

title Python
runtime python - "$model" "$audio" <<'EOF'
import sys
import asrkd
model = asrkd.load(sys.argv[1])
print(model.transcribe(sys.argv[2]).text or sys.exit("expected words, found none"))
EOF

title serve
runtime asrkd serve "$model" --port 0 >"$out/served" 2>&1 &
server=$!
for _ in $(seq 300); do
    address=$(sed -n 's#.*\(http://127[0-9.]*:[0-9]*\).*#\1#p' "$out/served" | head -n 1)
    [[ -n $address ]] && break
    sleep 0.1
done
[[ -n $address ]] || { cat "$out/served" >&2; exit 1; }
curl --silent --show-error --fail --form "file=@$audio" --form response_format=text \
    "$address/v1/audio/transcriptions" | tee "$out/from_server"
full "$out/from_server"
kill "$server" && wait "$server" || true
server=

title decode
with_run decode "$run" --recordings "$out/recordings.jsonl" --supervisions "$out/supervisions.jsonl" \
    --systems baseline distilled --out "$out/decoded"
full "$out/decoded"/{results.json,RESULTS.md,report/report.html,distilled.trn,distilled.ctm}

title compare
with_run compare "$out/decoded" --systems baseline distilled
with_run compare "$run:distilled" "$out/decoded:distilled" --json >"$out/compared"
full "$out/compared"

echo "every command works"
