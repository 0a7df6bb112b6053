#!/usr/bin/env bash
# The timit recipe: numbered stages, as in Kaldi. `recipes/timit/run.sh --help` lists them and every option.
exec "$(dirname "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" timit "$@"
