# Sourced by the other scripts: finding a Python, and making environments that are whole or not there.

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The first Python of 3.11 or newer. The system's own goes first: every user of the host can run it.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer is missing: apt install python3 python3-venv"
}

# make_environment DIR KEY FUNCTION: DIR becomes a link to an environment that FUNCTION has filled (it gets the
# environment's python). KEY says what is in it: with the same KEY, nothing is done. It is built aside, so that DIR
# is never half made, and one that broke off is made anew.
make_environment() {
  local dir=$1 key=$2 fill=$3 python real old
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python cannot make environments: apt install python3-venv"
  key=$(printf '%s %s' "$key" "$("$python" -c 'import sys; print(sys.executable, sys.version)')" | sha256sum | cut -c1-12)
  real=$dir-$key
  [ -L "$dir" ] && [ "$(readlink "$dir")" = "$(basename "$real")" ] && [ -x "$real/bin/python" ] && return
  say "making the environment $(basename "$dir") with $python ..."
  rm -rf "$real"
  if ! { "$python" -m venv "$real" && "$fill" "$real/bin/python"; }; then
    rm -rf "$real"
    die "the environment could not be made; nothing was left behind"
  fi
  ln -sfn "$(basename "$real")" "$dir.new" && mv -T "$dir.new" "$dir"
  for old in "$dir"-*; do
    [ "$old" = "$real" ] || rm -rf "$old"
  done
}

# What the tests and checks run in: pinned by hash, and Septet itself from this checkout.
fill_for_development() {
  "$1" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt &&
    "$1" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
}

development_environment() {
  make_environment "$PWD/.venv-dev" "$(cat requirements/dev.txt pyproject.toml)" fill_for_development
}
