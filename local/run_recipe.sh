#!/usr/bin/env bash
# Run a recipe in the project's environment, or print how to make the environment. recipes/*/run.sh call it.
#
#   local/run_recipe.sh NAME OPTION...
set -euo pipefail
unset CDPATH # with it, cd prints, and may find another folder
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
name=$1
shift
# ASRKD_PYTHON: any interpreter that has torch and k2 (docs/environment.md).
python=${ASRKD_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$python" ]; then
  echo "recipes/$name/run.sh: error: $python: no such program; make the environment with \`make setup\`" >&2
  exit 2
fi
missing='import sys, importlib.util as found; print(*(name for name in sys.argv[1:] if not found.find_spec(name)))'
if [ "$name" != mnist ]; then
  missing=$("$python" -c "$missing" k2 lhotse kaldifst kaldialign soundfile)
  if [ -n "$missing" ]; then
    echo "recipes/$name/run.sh: error: $python: expected k2, lhotse and the rest of the extra \`decode\`, which speech needs, found no $missing; use the environment of \`make setup\`, or name another with ASRKD_PYTHON" >&2
    exit 2
  fi
fi
# Files are UTF-8 whatever the locale.
export PYTHONUTF8=1
# In a log file, a progress bar needs a new line every 30 seconds only.
[ -t 2 ] || export TQDM_MININTERVAL="${TQDM_MININTERVAL:-30}"
exec "$python" "$root/recipes/$name/recipe.py" "$@"
