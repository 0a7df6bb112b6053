#!/usr/bin/env bash
# The librispeech recipe: numbered stages, as in Kaldi. `recipes/librispeech/run.sh --help` lists them and every option.
exec "$(dirname "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" librispeech "$@"
