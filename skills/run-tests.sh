#!/usr/bin/env bash
# Runs the tests of the bundled skills with the runtime's Python packages (see deploy/runtime.sh). Writes nothing under skills/.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
runtime=${PALISADE_RUNTIME:-/opt/palisade/runtime}
if [[ ! -d $runtime/python/pptx ]]; then
  echo "skills: error: no Python packages in $runtime/python; run deploy/runtime.sh --prefix $runtime (or set PALISADE_RUNTIME)" >&2
  exit 1
fi

status=0
for tests in "$here"/*/tests; do
  echo "skills: $(basename "$(dirname "$tests")")"
  env -u PYTHONHOME PYTHONPATH="$runtime/python" PYTHONDONTWRITEBYTECODE=1 \
    /usr/bin/python3 -m unittest discover -s "$tests" -t "$tests" "$@" || status=1
done
exit $status
