#!/usr/bin/env bash
# The mnist recipe: numbered stages, as in Kaldi. `recipes/mnist/run.sh --help` lists them and every option.
exec "$(dirname "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" mnist "$@"
