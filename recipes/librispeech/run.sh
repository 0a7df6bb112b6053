#!/usr/bin/env bash
# The librispeech recipe: numbered stages, as in Kaldi. --help lists the stages, the common options and examples.
exec "$(dirname -- "${BASH_SOURCE[0]}")/../../local/run_recipe.sh" librispeech "$@"
