# The virtual environment of demo.sh and test.sh; both source this file.
# shellcheck shell=sh
#
#   root=...; . "$root/scripts/venv.sh"
#   make_venv convert,plot,test    # the extras of setup.py to install
#   "$python" some_program.py
#
# PYTHON=python3.12     makes the environment with this interpreter.
# TENSORFLOW=2.16.2     installs this release, in an environment of its own.
#
# An environment is installed again only when setup.py, the interpreter, the
# TensorFlow asked for or the project's place has changed.

# shellcheck disable=SC2154  # root is set by the script that sources this
venv="$root/.venv${TENSORFLOW:+-tf$TENSORFLOW}"
python="$venv/bin/python"
# Marks an environment as made here, and says for what once it is complete.
stamp="$venv/adapter-bert.stamp"

# TensorFlow's C++ side reports nothing below an error.
TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
export TF_CPP_MIN_LOG_LEVEL

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "error: $*"
  exit 1
}

# Whether this interpreter is one that TensorFlow 2.16 to 2.21 exists for.
is_supported() {
  "$1" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Debian and Ubuntu leave these out of the package python3.
has_venv() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null
}

version_of() {
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

# Sets base_python to the interpreter that makes the environment.
find_python() {
  without_venv=
  # PYTHON may be a path with spaces, hence not one word of the list.
  for candidate in ${PYTHON:+PYTHON} python3 python3.13 python3.12 python3.11 \
      python3.10; do
    if [ "$candidate" = PYTHON ]; then
      base_python=$PYTHON
      is_supported "$base_python" ||
        die "PYTHON=$PYTHON is not a Python 3.10 to 3.13 ($(
          version_of "$PYTHON" || echo 'it does not run'))"
      has_venv "$base_python" && return
      without_venv=$base_python
      break
    fi
    base_python=$candidate
    is_supported "$base_python" || continue
    has_venv "$base_python" && return
    without_venv=${without_venv:-$base_python}
  done
  [ -z "$without_venv" ] ||
    die "$without_venv ($(version_of "$without_venv")) has no venv module;" \
      "install it (Debian, Ubuntu: sudo apt install python3-venv), or name" \
      "another Python 3.10 to 3.13 with PYTHON=..."
  die "no Python 3.10 to 3.13 found (python3 is" \
    "$(version_of python3 || echo missing)); install one, or name it with" \
    "PYTHON=..."
}

# What an environment in the state wanted has in its stamp, but for the extras.
wanted_stamp() {
  echo "$(cksum < "$root/setup.py") $(version_of "$python")" \
    "${TENSORFLOW:-any} $root"
}

# Whether the environment is complete and has at least the extras $1.
is_ready() {
  [ -f "$stamp" ] || return 1
  for extras in "$1" convert,plot,test; do
    [ "$(cat "$stamp")" != "$(wanted_stamp) $extras" ] || return 0
  done
  return 1
}

# An environment made here for another interpreter, or never finished, goes.
remove_if_unfit() {
  [ -f "$stamp" ] || return 0
  if [ "$(cat "$stamp")" = unfinished ] || ! is_supported "$python"; then
    rm -rf "$venv"
  elif [ -n "${PYTHON:-}" ] && is_supported "$PYTHON" &&
      [ "$(version_of "$PYTHON")" != "$(version_of "$python")" ]; then
    say "$venv is of Python $(version_of "$python"): making it anew."
    rm -rf "$venv"
  fi
}

remove_unfinished() {
  trap - EXIT
  if [ "$(cat "$stamp" 2>/dev/null)" = unfinished ]; then
    rm -rf "$venv"
  fi
}

# Makes $venv if it is not there, and installs the project with the extras $1.
make_venv() {
  remove_if_unfit
  if is_ready "$1"; then
    return
  fi
  # From here on, whatever stops the script leaves no half-made environment.
  trap remove_unfinished EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  if [ -x "$python" ]; then
    say "Bringing $venv up to date."
  else
    find_python
    say "Making $venv with $base_python ($(version_of "$base_python")) and" \
      "installing TensorFlow there (minutes, about 2 GB)."
    mkdir -p "$venv"
    echo unfinished > "$stamp"
    "$base_python" -m venv "$venv" || die "$base_python could not make $venv"
  fi
  quiet=--quiet
  [ ! -t 1 ] || quiet=
  # shellcheck disable=SC2086  # empty means no argument
  (cd "$root" && "$python" -m pip install --disable-pip-version-check $quiet \
    --editable ".[$1]" ${TENSORFLOW:+"tensorflow==$TENSORFLOW"}) ||
    die "pip could not install the project (its own words are above)"
  echo "$(wanted_stamp) $1" > "$stamp"
  trap - EXIT INT TERM HUP
}
