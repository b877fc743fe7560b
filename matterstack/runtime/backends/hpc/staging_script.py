"""The shell of staging: unpacks the tar stream, checks contents, and puts them into their places.

A first line sets ``new``, the directory for contents on their way. Standard input: attempt directories, a line each, up
to an empty one; then the stream. Who fails says so, behind the words of the command that failed; who does not,
says ``staged`` at the end.
"""

from __future__ import annotations

from typing import Final

# An attempt with a claim has started: nothing of it is touched. `started` has its directory between colons.
# tar removes a file that stands where a directory should be, and takes a stream cut between two files for whole; so
# both are looked at. Times are those of now: purgers of scratch file systems remove what is old.
UNPACK: Final = r"""
exec 2>&1
say begin
fail() { say failed; exit; }
started=:
set --
while read -r dir && [ -n "$dir" ]; do
  for at in "${dir%%/*}" "${dir%/*}" "$dir"; do
    [ -d "$at" ] || { [ ! -e "$at" ] && [ ! -L "$at" ]; } || { echo "$at is in the way: it is no directory"; fail; }
  done
  for claim in "$dir/.matterstack"/claim*; do
    [ ! -f "$claim" ] || { started=$started$dir/:; set -- "$@" --exclude="$dir"; break; }
  done
done
trap 'rm -rf "$new"' EXIT
find .matterstack -maxdepth 1 -name 'new.*' -mtime +1 -exec rm -rf {} +
mkdir "$new" || fail
tar -x -f - -m --no-same-owner --no-overwrite-dir --keep-directory-symlink --anchored --no-wildcards "$@" \
  --transform "s,^\.matterstack/new/,$new/," || fail
[ -f "$new/end" ] || { echo "the stream was cut"; fail; }
"""

# sums PATH…: say which of the contents are not what their names promise.   fresh, had: of what was just sent, of what
# was in the store before.   put HOW CONTENT PLACE…: `tee` writes many at once, `cp` may share blocks.
CONTENTS: Final = r"""
sums() { for one do printf '%s  %s\n' "${one##*/}" "$one"; done | sha256sum -c --quiet; }
fresh() { sums "$@" || { echo "contents arrived damaged"; fail; }; }
had() {
  bad=$(sums "$@") && return
  printf '%s\n' "$bad" | while IFS=: read -r path _; do
    case $path in .matterstack/store/*) rm -f -- "$path" ;; esac
  done
  echo "contents in the store were damaged; they are sent again"; fail
}
shelve() { shelf=$1; shift; { [ -d "$shelf" ] || mkdir -p "$shelf"; } && mv -f -- "$@" "$shelf/" || fail; }
put() {
  how=$1; content=$2; shift 2
  if [ "$started" != : ]; then
    for place do
      shift
      case $started in *":${place%"${place#*/*/*/}"}:"*) ;; *) set -- "$@" "$place" ;; esac
    done
    [ $# -gt 0 ] || return 0
  fi
  case $how in
    *tee) tee -- "$@" <"$content" >/dev/null || fail ;;
    *) for place do cp -f --reflink=auto -- "$content" "$place" || fail; done ;;
  esac
  case $how in x*) chmod u+x -- "$@" || fail ;; esac
}
"""

# bring FROM PATH DIR NUMBER PLACE: copy another attempt's file; a link must not lead out of that attempt.
UPSTREAM: Final = r"""
plain() {
  at=$1; rest=$2
  while at=$at/${rest%%/*}; [ ! -L "$at" ]; do
    case $rest in */*) rest=${rest#*/} ;; *) return 0 ;; esac
  done
  return 1
}
bring() {
  case $started in *":$3/:"*) return ;; esac
  from=$1/$2
  if ! plain "$1" "$2"; then
    base=$(readlink -f -- "$1") && from=$(readlink -f -- "$from") || { say missing "$3" "$4"; return; }
    case $from in "$base"/*) ;; *) say outside "$3" "$4"; return ;; esac
  fi
  if [ ! -f "$from" ]; then say missing "$3" "$4"
  elif [ ! -r "$from" ]; then say unreadable "$3" "$4"
  else cp -f -- "$from" "$5" || fail
  fi
}
"""
