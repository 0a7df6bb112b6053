#!/usr/bin/env bash
# The prompts recipe: numbered stages, as in Kaldi. `recipes/prompts/run.sh --help` lists them and every option.
exec "$(dirname "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" prompts "$@"
