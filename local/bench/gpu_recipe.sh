#!/usr/bin/env bash
# What needs both environments and a GPU, in at most eight minutes: AN4's teachers, posteriors and students through
# --train.python, the benchmarks of gpu.sh without MNIST, and the tests that need CUDA.
#
#     make setup && ASRKD_TRAIN_TORCH=2.13.0+cu130 local/setup_train.sh
#     local/bench/gpu_recipe.sh CORPUS_DIR [OUT_DIR]
#
# Before the eight minutes it makes AN4's frames and labels on the CPUs, unless OUT_DIR/an4 (default exp/gpu) has them.
# Each part has a limit of its own; a part that exceeds it or fails leaves its message in OUT_DIR, and the others go on.
set -uo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/../.."
corpus=${1:?usage: local/bench/gpu_recipe.sh CORPUS_DIR [OUT_DIR]}
out=${2:-exp/gpu}
python=$PWD/.venv-train/bin/python
recipe=(recipes/an4/run.sh --corpus-dir "$corpus" --exp-dir "$out/an4" --train.python "$python")
mkdir -p "$out"
failed=0

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "local/bench/gpu_recipe.sh: error: $python: expected a torch that finds a GPU" >&2
    exit 2
}

part() { # NAME SECONDS COMMAND...: runs a part within its limit and says how long it took
    local name=$1 limit=$2 started=$SECONDS
    shift 2
    if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then
        echo "== $name: $((SECONDS - started)) s"
    else
        failed=1
        echo "== $name: failed with status $? after $((SECONDS - started)) s (124: its limit, $limit s): $out/$name.log"
        tail -n 1 "$out/$name.log"
    fi
}

"${recipe[@]}" --device cpu --stop-stage 5 || exit
started=$SECONDS
part networks 180 "${recipe[@]}" --device cuda --stage 6 --stop-stage 8
part benchmarks 210 env MNIST=no local/bench/gpu.sh "$out"
part tests 75 "$python" -m pytest -q tests/nnet tests/distil -k "a_gpu or gpu_learns or cuda_graph_learn or waits_for_a_gpu"
echo "== all parts: $((SECONDS - started)) s"
"${recipe[@]}" --list-steps --stage 6 --stop-stage 8
exit "$failed"
