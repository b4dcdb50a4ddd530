# What ci/stack downloads or compiles, kept outside of the checkout, where other checkouts find it too.
# shellcheck shell=bash

cache=${CLICKSTREAM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clickstream}

missing() { # WHAT APT-PACKAGES BREW-FORMULA
  case $(uname -s) in
    Darwin) die "$1 is missing: brew install $3" ;;
    *) die "$1 is missing: apt-get install $2" ;;
  esac
}

need() { command -v "$1" >/dev/null || missing "$@"; }

# cached DIR COMMAND...: has COMMAND fill $cache/DIR, if it is not there. It fills another directory, which is renamed when
# whole, so that a download that was cut off or is wrong is never used; and under a lock, because stacks may start together.
cached() {
  local dir=$cache/$1 partial=$cache/partial
  shift
  [ ! -d "$dir" ] || return 0
  need flock util-linux flock
  mkdir -p "$cache"
  (
    flock 8
    [ ! -d "$dir" ] || exit 0
    rm -rf "$partial"
    mkdir "$partial"
    cd "$partial" || exit
    "$@" >&2
    mv "$partial" "$dir"
  ) 8>"$cache/lock"
}

# A directory named after what it is made from: checkouts of different ages share the cache.
made_from() { echo "$1-$(cksum <"$2" | tr ' ' -)"; } # NAME FILE
