#!/usr/bin/env bash
# Exports the distilled student of a finished run, and transcribes three recordings of its test set with it:
#
#   local/try_student.sh RUN [MODEL]       default MODEL: RUN_model
#
# Does nothing where RUN is not finished. An exported model is replaced.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."

run=$1
model=${2:-$1_model}
asrkd=.venv/bin/asrkd

if [[ ! -f $run/results.json ]]; then exit; fi
"$asrkd" export "$run" --out "$model"
recordings=()
while IFS= read -r path; do recordings+=("$path"); done < <(
    zcat "$run/manifests/test/recordings.jsonl.gz" 2>/dev/null |
        sed -n 's/.*"source": *"\([^"\\]*\)".*/\1/p' | head -n 3
)
echo
"$asrkd" transcribe "$model" "${recordings[@]}"
echo
echo "Next: $asrkd transcribe $model AUDIO ... (docs/how_to/transcribe.md)"
