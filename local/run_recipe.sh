#!/usr/bin/env bash
# Run a recipe in the project's environment, or print how to make the environment. recipes/*/run.sh call it.
#
#   local/run_recipe.sh NAME OPTION...
set -euo pipefail
unset CDPATH # with it, cd prints, and may find another folder
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
name=$1
shift
python=${ASRKD_PYTHON:-$root/.venv/bin/python}
if [ ! -x "$python" ]; then
  echo "recipes/$name/run.sh: error: $python: no such program; make the environment with \`make setup\`" >&2
  exit 2
fi
speech='import sys, importlib.util as found; sys.exit(not (found.find_spec("k2") and found.find_spec("lhotse")))'
if [ "$name" != mnist ] && ! "$python" -c "$speech"; then
  echo "recipes/$name/run.sh: error: $python: expected k2 and lhotse, which speech needs; use the environment of \`make setup\`" >&2
  exit 2
fi
# Files are UTF-8 whatever the locale.
export PYTHONUTF8=1
# In a log file, a progress bar needs a new line every 30 seconds only.
[ -t 2 ] || export TQDM_MININTERVAL="${TQDM_MININTERVAL:-30}"
exec "$python" "$root/recipes/$name/recipe.py" "$@"
