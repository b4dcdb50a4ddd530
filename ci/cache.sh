# The cache of downloads and builds of ci/stack. It is outside the checkout, so that all checkouts share it.
# shellcheck shell=bash

cache=${CLICKSTREAM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clickstream}

missing() { # WHAT APT-PACKAGES BREW-FORMULA
  case $(uname -s) in
    Darwin) die "$1 is missing: brew install $3" ;;
    *) die "$1 is missing: apt-get install $2" ;;
  esac
}

need() { command -v "$1" >/dev/null || missing "$@"; }

# cached DIR COMMAND...: makes COMMAND fill $cache/DIR, if it is missing. COMMAND fills another directory, which is renamed when it is
# complete. So a broken or wrong download is never used. A lock serves stacks that start together.
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

# A directory named after its source file, because checkouts of different ages share the cache.
made_from() { echo "$1-$(cksum <"$2" | tr ' ' -)"; } # NAME FILE

# verified DIR SUMS: each file of $cache/DIR has the SHA-256 in SUMS, and there is no other file. Callers check this each time before they
# run a file of DIR. Files that are unchanged since the last check are not read again, because libchdb has 541 MB. Unchanged means the same
# inode, size and time of change, which a copied cache never has.
verified() {
  local dir=$cache/$1 sums=$2 stamp=$cache/$1.verified seen
  seen=$(cksum <"$sums"; files "$dir") || die "cannot read $dir"
  [ "$(cat "$stamp" 2>/dev/null)" != "$seen" ] || return 0
  has_only "$dir" "$sums" || die "$dir differs from the checksums in $sums; no file of it was run. Remove it: rm -r $dir"
  printf '%s\n' "$seen" >"$stamp.$$"
  mv "$stamp.$$" "$stamp"
}

files() { stat -c '%n %i %s %z' "$1"/* 2>/dev/null || stat -f '%N %i %z %Fc' "$1"/*; } # GNU, or BSD

has_only() { # DIR SUMS
  local sha256=(sha256sum)
  command -v sha256sum >/dev/null || sha256=(shasum -a 256)
  [ "$(cd "$1" && LC_ALL=C ls -A)" = "$(sed 's/^[0-9a-f]* [ *]//' "$2" | LC_ALL=C sort)" ] || {
    say "$1 does not hold the files that are pinned"
    return 1
  }
  (cd "$1" && "${sha256[@]}" --check --strict --status) <"$2" || {
    (cd "$1" && "${sha256[@]}" --check 2>/dev/null) <"$2" | grep -v ': OK$' >&2 || true
    return 1
  }
}
