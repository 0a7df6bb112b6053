#!/usr/bin/env bash
# The an4 recipe: numbered stages, as in Kaldi. --help lists the stages, the common options and examples.
exec "$(dirname -- "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" an4 "$@"
