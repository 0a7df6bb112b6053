#!/usr/bin/env bash
# The an4 recipe: numbered stages, as in Kaldi. `recipes/an4/run.sh --help` lists them and every option.
exec "$(dirname "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" an4 "$@"
