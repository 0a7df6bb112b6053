#!/usr/bin/env bash
# Prints the path of an interpreter: python.sh VERSION... tries each version in turn on PATH, under pyenv, among uv's own.
# With --download first, what none of them has is fetched by uv, the first version named.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "$0")/.."
uv=$(local/uv.sh)

download=
if [[ ${1:-} == --download ]]; then
    download=yes
    shift
fi

is_version() { # PATH VERSION: prints the interpreter behind PATH when it is that version; a pyenv shim may be none
    "$1" 2>/dev/null - "$2" <<'PYTHON'
import sqlite3, sys  # some are built without the former, which keeps what a step has done
if "%d.%d" % sys.version_info[:2] != sys.argv[1]:
    sys.exit(1)
print(sys.executable)
PYTHON
}

for version in "$@"; do
    candidates=("$(command -v "python$version" || true)" "$(command -v python3 || true)")
    candidates+=("${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python)
    for candidate in "${candidates[@]}"; do
        if [[ -n $candidate ]] && is_version "$candidate" "$version"; then exit; fi
    done
    if managed=$("$uv" python find --managed-python --no-python-downloads "$version" 2>/dev/null); then
        echo "$managed"
        exit
    fi
done

if [[ -n $download ]]; then
    echo "setup: no Python $* here: asking uv for $1" >&2
    if UV_HTTP_TIMEOUT=30 UV_HTTP_RETRIES=1 "$uv" python install "$1" >&2 &&
        managed=$("$uv" python find --managed-python --no-python-downloads "$1"); then
        echo "$managed"
        exit
    fi
fi
echo "setup: error: no Python ${*/%/,} neither on PATH, nor under pyenv, nor from uv:" \
    "\`apt-get install python3.11\` (Debian 12), \`pyenv install 3.10\` or \`uv python install 3.10\`" >&2
exit 2
