#!/bin/sh
# Runs the tests, in .venv, which is made first if need be.
#
#   ./test.sh                        every test but the long ones
#   ./test.sh --all                  the long ones too
#   ./test.sh modeling_test.py -x    further arguments go to pytest
#
#   PYTHON=python3.12 TENSORFLOW=2.16.2 ./test.sh
#                                    on the oldest TensorFlow supported (Python
#                                    up to 3.12), in an environment of its own
set -eu
root=$(cd "$(dirname "$0")" && pwd -P)
. "$root/scripts/venv.sh"

make_venv convert,plot,test
if [ "${1:-}" = --all ]; then
  shift
else
  # Two files at a time. The long ones run alone: some kill processes and time
  # how the others notice.
  set -- -m 'not slow' -n 2 --dist loadfile "$@"
fi
cd "$root"
exec "$python" -m pytest -q "$@"
