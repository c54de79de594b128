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
cd "$(dirname "$0")"
venv=.venv${TENSORFLOW:+-tf$TENSORFLOW}
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  "${PYTHON:-python3}" -m venv --clear "$venv" || {
    echo "error: ${PYTHON:-python3} makes no environment: it must be a Python" \
      "3.10 to 3.13 with its venv module; name another with PYTHON=..." >&2
    exit 1
  }
fi
# Installed again when setup.py has changed.
if [ ! "$venv/installed.test" -nt setup.py ]; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --editable ".[hf,metrics,plot,test,text]" \
    ${TENSORFLOW:+"tensorflow==$TENSORFLOW"}
  touch "$venv/installed.test"
fi

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
all=
if [ "${1:-}" = --all ]; then
  all=yes
  shift
fi
# Two files at a time.
"$venv/bin/python" -m pytest -q -m 'not slow' -n 2 --dist loadfile "$@"
# The long ones run alone: some kill processes and time how the others notice.
if [ "$all" ]; then
  exec "$venv/bin/python" -m pytest -q -m slow "$@"
fi
