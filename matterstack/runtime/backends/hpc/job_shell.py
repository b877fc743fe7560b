"""The shell of a job: the run claim, the command, the exit record.

Everything of ours begins with ``ms_``, so that modules and prologues do not meet it. The job starts in the workspace
root. Of any number of starts of one attempt exactly one gets past the claim; the others exit with 75, which by
itself proves nothing. A record is written under another name and renamed, so nobody reads half of one.
"""

from __future__ import annotations

from typing import Final

# Fields in braces are filled in; the shell's own braces are doubled. `ms_modules` finds the command ``module``.
MODULES: Final = """
ms_modules() {{
  for ms_i in /usr/share/modules/init/sh /usr/share/lmod/lmod/init/sh /etc/profile.d/modules.sh /etc/profile.d/lmod.sh
  do command -v module >/dev/null 2>&1 || [ ! -r "$ms_i" ] || . "$ms_i"; done
}}
"""

BEGIN: Final = (
    """
ms_index=${{SLURM_ARRAY_TASK_ID:--}}
ms_dir= ms_token=
while IFS='	' read -r ms_i ms_d ms_t; do
  if [ "$ms_i" = "$ms_index" ]; then ms_dir=$ms_d ms_token=$ms_t; break; fi
done <{base}/map
[ -n "$ms_token" ] && cd "./$ms_dir" || {{ echo "matterstack: {base}/map has no element $ms_index" >&2; exit 76; }}
ms_job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
ms_job=${{ms_job:-$SLURM_JOB_ID}}
ms_restart=${{SLURM_RESTART_COUNT:-0}}
ms_node=${{SLURMD_NODENAME:-$(uname -n)}}
ms_began=$(date +%s.%N)
ms_m=.matterstack
ms_claim=$ms_m/claim
ms_refuse() {{ printf '%s %s\\n' "$ms_job" "$ms_restart" >>"$ms_m/refused"; exit 75; }}
if [ -n "{requeue}" ]; then
  ms_claim=$ms_m/claim.$ms_restart
  for ms_i in "$ms_m"/claim.*; do
    [ ! -f "$ms_i" ] || [ "${{ms_i##*.}}" -lt "$ms_restart" ] || ms_refuse
  done
fi
ms_try=$ms_m/try.$ms_job.$ms_restart.$$
printf 'ms1 %s %s %s %s %s %s .\\n' "$ms_token" "$ms_job" "$ms_restart" "$ms_began" "$ms_node" "$$" >"$ms_try" ||
  {{ rm -f "$ms_try"; echo "matterstack: the claim could not be written; the command was not started" >&2; exit 73; }}
sync -d "$ms_try" 2>/dev/null
# On a network file system ln may have worked and say that it has not; the number of links does not lie.
ln "$ms_try" "$ms_claim" 2>/dev/null
ms_links=$(stat -c %h "$ms_try")
rm -f "$ms_try"
[ "$ms_links" = 2 ] || ms_refuse
ms_flags=
ms_end() {{
  trap '' TERM USR1
  [ ! -e "$ms_m/limit-near" ] || ms_flags=$ms_flags,limit-near
  ms_flags=${{ms_flags#,}}
  ms_n=0
  until printf 'ms1 %s %s %s %s %s %s %s %s .\\n' "$ms_token" "$ms_job" "$ms_restart" "$1" "$ms_began" \\
    "$(date +%s.%N)" "$ms_node" "${{ms_flags:--}}" >"$ms_m/exit.$$" && mv -f "$ms_m/exit.$$" "$ms_m/exit"; do
    ms_n=$((ms_n + 1))
    [ -d "$ms_m" ] && [ "$ms_n" -lt 300 ] || break
    sleep 1
  done
}}
if [ "$ms_restart" = 0 ]; then exec >stdout.txt 2>stderr.txt </dev/null
else exec >>stdout.txt 2>>stderr.txt </dev/null
fi
trap 'true >"$ms_m/limit-near"' USR1
ms_term=
trap 'ms_term=1' TERM
# Until the command starts, any end is one of the set-up: of a module, of a line of the prologue.
trap 'ms_c=$?; rm -f "$ms_m/secrets"; ms_flags=setup; ms_end "$ms_c"; trap - EXIT; exit "$ms_c"' EXIT
export HOME="${{HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}}" USER="${{USER:-$(id -un)}}"
export PATH="${{PATH:-/usr/local/bin:/usr/bin:/bin}}" SLURM_EXPORT_ENV=ALL
ms_pwd=$PWD
[ ! -r /etc/profile ] || . /etc/profile >/dev/null 2>&1
"""
    + MODULES
)

RUN: Final = """
set +eufCnx
cd "$ms_pwd" || exit
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{cores}}}"
. "./$ms_m/env"
ms_command=$(cat "$ms_m/command"; echo .)
ms_command=${{ms_command%.}}
# Slurm may lose a scancel that meets the start of a job; the mark was there before it was called.
if [ -n "$ms_term" ] || [ -e "$ms_m/cancel" ]; then exit 143; fi
(
  trap - TERM USR1 EXIT
  [ ! -f "$ms_m/secrets" ] || {{ . "./$ms_m/secrets"; rm -f "$ms_m/secrets"; }}
  # One argument may have 128 KiB on Linux; a longer command is read from its file.
  if [ "${{#ms_command}}" -gt 100000 ]; then exec env "$@" {container}/bin/sh "./$ms_m/command"; fi
  exec env "$@" {container}/bin/sh -c "$ms_command"
) &
ms_pid=$!
trap - EXIT
"""

# `wait` also returns when a signal was noted; then the command is still there.
END: Final = """while :; do
  wait "$ms_pid"
  ms_code=$?
  kill -0 "$ms_pid" 2>/dev/null || break
done
ms_end "$ms_code"
exit "$ms_code"
"""
