"""The shell of a submission: the submit claim, sbatch, the receipt; and looking at what an earlier one left.

A submission is a directory ``.matterstack/submissions/<T>``. Its tries are ``claim.<gen>.<k>`` (a directory: whoever
makes it may call sbatch, once), ``receipt.<gen>.<k>`` with ``out`` and ``err`` (what sbatch answered, complete),
and ``fence.<gen>.<k>`` (no sbatch any more: a late shell finds it and stops).
"""

from __future__ import annotations

from typing import Final

from matterstack.runtime.backends.hpc.layout import META

# tell T GEN K: say what stands of try K.   try_one MODE T GEN AFTER [INDICES]: MODE look, submit or withdraw; tries
# up to AFTER are known not to count, all later ones are told. After an answer that may come again for the next one,
# none is tried any more.
# The job gets this small environment. Slurm's own ways to a clean one (NIL, NONE) run a login shell for each job:
# a third of a second of CPU, and whatever it does (measured on 22.05).
# sbatch itself tries again for up to 120 s; what hangs longer is ended, and its outcome is looked up.
FUNCTIONS: Final = """
clean() {
  env -i PATH="$PATH" HOME="$HOME" USER="${USER:-}" LOGNAME="${LOGNAME:-}" SHELL=/bin/sh LANG="${LANG:-C}" \
    ${SLURM_CONF:+"SLURM_CONF=$SLURM_CONF"} ${LD_LIBRARY_PATH:+"LD_LIBRARY_PATH=$LD_LIBRARY_PATH"} "$@"
}
age() { now=$(date +%s); made=$(stat -c %Y -- "$1") || made=$now; echo $((now - made)); }
tell() {
  s=.matterstack/submissions/$1; at=$2.$3
  indices=; [ ! -f "$s/claim.$at/indices" ] || read -r indices <"$s/claim.$at/indices"
  if [ -f "$s/receipt.$at" ]; then
    read -r code <"$s/receipt.$at"
    say receipt "$1" "$3" "$(age "$s/receipt.$at")" "$code" "$indices"
    cat "$s/out.$at"; say err; cat "$s/err.$at"
  elif [ -e "$s/claim.$at/withdrawn" ]; then say withdrawn "$1" "$3"
  else say claimed "$1" "$3" "$(age "$s/claim.$at")" "$indices"
  fi
}
try_one() {
  s=.matterstack/submissions/$2; k=$4
  while [ -d "$s/claim.$3.$((k + 1))" ]; do [ "$k" = "$4" ] || tell "$2" "$3" "$k"; k=$((k + 1)); done
  if [ "$k" -gt "$4" ]; then tell "$2" "$3" "$k"; return; fi
  if [ "$1" = look ]; then say none "$2"; return; fi
  if [ -n "$stopped" ]; then say left "$2"; return; fi
  k=$((k + 1)); at=$3.$k
  [ -d "$s" ] || mkdir -p "$s"
  if ! mkdir "$s/claim.$at"; then
    if [ -d "$s/claim.$at" ]; then tell "$2" "$3" "$k"; else say full "$2"; stopped=1; fi
    return
  fi
  if [ "$1" = withdraw ]; then true >"$s/claim.$at/withdrawn"; tell "$2" "$3" "$k"; return; fi
  printf '%s\\n' "$5" >"$s/claim.$at/indices" ||
    { rm -f "$s/claim.$at/indices"; rmdir "$s/claim.$at"; say full "$2"; stopped=1; return; }
  if [ -e "$s/fence.$at" ]; then say fenced "$2"; return; fi
  clean timeout -k 5 200 sbatch --parsable ${5:+"--array=$5"} "$s/job.sh" >"$s/out.$at" 2>"$s/err.$at" </dev/null
  code=$?
  printf '%s\\n' "$code" >"$s/receipt.$at.tmp" && mv "$s/receipt.$at.tmp" "$s/receipt.$at"
  case $code:$(cat "$s/err.$at") in
    0:* | *"submission failed: Invalid"* | *"submission failed: Requested"* | *"error: invalid"*) ;;
    *) stopped=1 ;;
  esac
  tell "$2" "$3" "$k"
}
stopped=
"""

# Whether the jobs' own records say which job started. Reads: an attempt's directory a line.
CLAIMS: Final = """
while read -r dir; do
  for claim in "$dir/.matterstack"/claim*; do
    [ ! -f "$claim" ] || { line=; read -r line <"$claim"; say started "$dir" "$line"; }
  done
done
"""


def mark_cancelled(directory: str) -> str:
    """Return the command that marks an attempt as cancelled: no job of it begins any more, none needs its secrets."""
    records = f"{directory}/{META}"
    return f"[ ! -d {records} ] || {{ true >{records}/cancel && rm -f {records}/secrets; }}"
