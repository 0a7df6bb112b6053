#!/usr/bin/env bash
# The prompts recipe: numbered stages, as in Kaldi. `recipes/prompts/run.sh --help` lists them and every option.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${ASRKD_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$python" ]; then
  echo "recipes/prompts/run.sh: error: no $python: make the environment first, with local/setup.sh" >&2
  exit 2
fi
exec "$python" "$root/recipes/prompts/recipe.py" "$@"
