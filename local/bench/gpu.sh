#!/usr/bin/env bash
# Every figure that needs a GPU: training of the paper's network, shards, stacks, and MNIST in full.
#
#     ASRKD_TRAIN_TORCH=2.13.0+cu130 local/setup_train.sh      # torch for this GPU, in .venv-train
#     local/bench/gpu.sh [OUT_DIR]
#
# OUT_DIR (default exp/gpu) gets one JSON file a benchmark, all of them as gpu.jsonl (BENCHMARKS.md has the one in
# local/bench), and MNIST's run, unless MNIST=no: ten minutes on an H100. What fails leaves its message in the .log
# beside it; the others go on, and the script ends with an error. gpu_recipe.sh runs a speech recipe too.
set -uo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/../.."
python=${PYTHON:-$PWD/.venv-train/bin/python}
out=${1:-exp/gpu}
mkdir -p "$out"
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "local/bench/gpu.sh: error: $python: expected a torch that finds a GPU" >&2
    exit 2
}
number=10 failed=0

bench() { # SUBJECT OPTION...
    local name=$number-$1
    number=$((number + 1))
    echo "== $*"
    if "$python" "local/bench/$1.py" --json --device cuda "${@:2}" >"$out/$name.partial" 2>"$out/$name.log"; then
        mv "$out/$name.partial" "$out/$name.json"
    else
        failed=1
        tail -n 1 "$out/$name.log"
    fi
}

paper=(training --layers 8 --width 2560 --senones 14000 --no-peer)
for batch in 8192 16384 32768; do
    bench "${paper[@]}" --frames 2000000 --batch-size "$batch"
    bench "${paper[@]}" --frames 2000000 --batch-size "$batch" --top-k 20
done
bench "${paper[@]}" --frames 2000000 --batch-size 16384 --top-k 20 --no-cuda-graph
bench "${paper[@]}" --frames 8000000 --batch-size 16384 --top-k 20 --shard-frames 2000000
digits=(--layers 2 --width 1200 --inputs 784 --outputs 10 --batch-size 512 --dropout 0.3)
bench stacks --steps 200
bench stacks --steps 200 --no-cuda-graph
bench stacks --steps 200 "${digits[@]}"
bench stacks --steps 200 "${digits[@]}" --no-cuda-graph
cat "$out"/[0-9]*.json >"$out/gpu.jsonl"

[[ ${MNIST:-yes} == no ]] && exit "$failed"
echo "== MNIST, all experiments"
started=$SECONDS
ASRKD_PYTHON=$python recipes/mnist/run.sh --exp-dir "$out/mnist" 2>"$out/mnist.log" || failed=1
echo "== MNIST took $((SECONDS - started)) s"
exit "$failed"
