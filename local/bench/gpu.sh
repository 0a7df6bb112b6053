#!/usr/bin/env bash
# Every figure that needs a GPU, in some ten minutes: training of the paper's network, stacks, MNIST in full.
#
#     PYTHON=.venv-train/bin/python local/bench/gpu.sh [OUT_DIR]
#
# One JSON object a line in OUT_DIR/bench.jsonl (default exp/gpu); a run that fails leaves its message beside it and the
# others go on.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv-train/bin/python}
out=${1:-exp/gpu}
mkdir -p "$out"

bench() { # SUBJECT OPTION...
    echo "== $*"
    "$python" "local/bench/$1.py" --json --device cuda "${@:2}" >>"$out/bench.jsonl" 2>>"$out/errors.txt" ||
        echo "   failed: see $out/errors.txt"
}

paper=(training --layers 8 --width 2560 --senones 14000 --frames 2000000 --no-peer)
for batch in 8192 16384; do
    for compile in --no-compile --compile; do
        bench "${paper[@]}" --batch-size "$batch" "$compile"
        bench "${paper[@]}" --batch-size "$batch" "$compile" --top-k 20
    done
done
bench "${paper[@]}" --batch-size 16384 --shard-frames 500000
bench "${paper[@]}" --batch-size 8192 --dropout 0.1
bench training --layers 5 --width 1024 --senones 2000 --frames 2000000 --batch-size 4096
bench stacks
bench stacks --dropout 0.2
bench stacks --layers 2 --width 1200 --inputs 784 --outputs 10 --batch-size 512 --dropout 0.3
