"""The shell of a job: the run claim, the command, the exit record.

Everything of ours begins with ``ms_``, so that modules and prologues do not meet it. The job starts in the workspace
root. Of any number of starts of one attempt exactly one gets past the claim; the others exit with 75, which by
itself proves nothing. A record is written under another name and renamed, so nobody reads half of one.

Three shells, each for what the others cannot: the script's own notes signals at once; a worker has the command in its
foreground, for a `wait` that a signal interrupts may lose the exit code, and writes the record; a child of that is set
up and becomes the command, so nothing that a prologue does to its shell keeps the record from being written.
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

# `true` makes files, not `:`: of a special builtin, a redirection that fails on a full disk would end the shell.
# The first claim is always ``claim``, so that jobs of one attempt meet at it, whatever their profiles allow. ms_m is
# set once the attempt is ours: before, nothing of it may be touched.
BEGIN: Final = """
ms_m= ms_noted= ms_near= ms_term=
ms_warned() {{ ms_noted=1 ms_near=1; [ -z "$ms_m" ] || {{ true >"$ms_m/limit-near"; }} 2>/dev/null; }}
trap ms_warned USR1
trap 'ms_noted=1 ms_term=1' TERM
ms_index=${{SLURM_ARRAY_TASK_ID:--}}
ms_map={base}/map${{SLURM_ARRAY_TASK_ID:+.$((SLURM_ARRAY_TASK_ID / {rows}))}}
ms_dir= ms_token=
while IFS='	' read -r ms_i ms_d ms_t; do
  if [ "$ms_i" = "$ms_index" ]; then ms_dir=$ms_d ms_token=$ms_t; break; fi
done <"$ms_map"
[ -n "$ms_token" ] && cd "./$ms_dir" || {{ echo "matterstack: $ms_map has no element $ms_index" >&2; exit 76; }}
ms_job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
ms_job=${{ms_job:-$SLURM_JOB_ID}}
ms_restart=${{SLURM_RESTART_COUNT:-0}}
ms_node=${{SLURMD_NODENAME:-$(uname -n)}}
ms_began=$(date +%s.%N)
ms_r=.matterstack ms_try=
ms_refuse() {{
  [ -z "$ms_try" ] || rm -f "$ms_try"
  printf '%s %s\\n' "$ms_job" "$ms_restart" >>"$ms_r/refused"
  exit 75
}}
ms_claim=$ms_r/claim
for ms_i in "$ms_r"/claim*; do
  [ -f "$ms_i" ] || continue
  read -r ms_x ms_x ms_j ms_c ms_x <"$ms_i"
  [ -n "{requeue}" ] && [ "$ms_j" = "$ms_job" ] && [ "$ms_c" -lt "$ms_restart" ] || ms_refuse
  ms_claim=$ms_r/claim.$ms_restart
done
ms_try=$ms_r/try.$ms_job.$ms_restart.$ms_node.$$
ms_line="ms1 $ms_token $ms_job $ms_restart $ms_began $ms_node $$ ."
printf '%s\\n' "$ms_line" >"$ms_try" ||
  {{ rm -f "$ms_try"; echo "matterstack: the claim could not be written; the command was not started" >&2; exit 73; }}
sync -d "$ms_try" 2>/dev/null
# On a network file system ln may have worked and say that it has not; what the claim says does not lie.
ln "$ms_try" "$ms_claim" 2>/dev/null
ms_x=
{{ read -r ms_x <"$ms_claim"; }} 2>/dev/null
[ "$ms_x" = "$ms_line" ] || ms_refuse
ms_pwd=$PWD ms_m=$PWD/.matterstack
[ "$ms_restart" = 0 ] || rm -f "$ms_m/exit" "$ms_m/begun" "$ms_m/limit-near"
[ -z "$ms_near" ] || ms_warned
ms_end() {{
  trap '' TERM USR1
  [ -d "$ms_m" ] || return 0  # somebody removed it: there is nowhere to tell anything
  [ ! -e "$ms_m/secrets" ] || rm -f "$ms_m/secrets"
  ms_flags=
  if [ ! -e "$ms_m/begun" ]; then
    [ "$ms_code" != 0 ] || ms_code=78
    # That it was cancelled is not the set-up's fault.
    if [ -z "$ms_term" ] && [ ! -e "$ms_m/cancel" ]; then ms_flags=,setup; fi
    printf 'matterstack: the set-up ended with %s, the command was not started\\n' "$ms_code" >>stderr.txt
  fi
  [ ! -e "$ms_m/limit-near" ] || ms_flags=$ms_flags,limit-near
  ms_flags=${{ms_flags#,}}
  ms_n=0
  until printf 'ms1 %s %s %s %s %s %s %s %s .\\n' "$ms_token" "$ms_job" "$ms_restart" "$ms_code" "$ms_began" \\
    "$(date +%s.%N)" "$ms_node" "${{ms_flags:--}}" >"$ms_m/exit.$$" && mv -f "$ms_m/exit.$$" "$ms_m/exit"; do
    ms_n=$((ms_n + 1))
    [ -d "$ms_m" ] && [ "$ms_n" -lt 300 ] || break
    sleep 1
  done
}}
ms_set_up() {{
trap - TERM USR1
export HOME="${{HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}}" USER="${{USER:-$(id -un)}}"
export PATH="${{PATH:-/usr/local/bin:/usr/bin:/bin}}" SLURM_EXPORT_ENV=ALL
# /etc/profile may set PATH anew, and Slurm itself be found by the login's only. With a prompt, which dash has even in a
# script, it would do what is for people.
ms_path=$PATH PS1=
[ ! -r /etc/profile ] || . /etc/profile >/dev/null 2>&1
case $PATH in "$ms_path" | "$ms_path":* | *:"$ms_path") ;; *) PATH=$PATH:$ms_path ;; esac
"""

# Lines of users are quoted and go through eval: what does not parse ends the set-up, and not the script.
PROLOGUE: Final = """ms_parsed=
eval {lines}
[ -n "$ms_parsed" ] || exit 2
"""

# Runtimes cannot be told such a name.
BINDABLE: Final = """case $ms_pwd in *[:,]*)
  echo "matterstack: a directory with : or , in its name cannot be bound into a container: $ms_pwd" >&2; exit 74 ;;
esac
"""

# {container} is empty or a command with a blank behind it. The last act of the set-up is to say that it is over.
RUN: Final = """
set +aeufCvx
cd "$ms_pwd" || exit 74
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{cores}}}"
ms_given= ms_secrets= ms_command=
. "$ms_m/env"
case $ms_given in argument) ;; file) [ -s "$ms_m/command" ] || exit 74 ;; *) exit 74 ;; esac
if [ -n "$ms_secrets" ]; then
  . "$ms_m/secrets" && command rm -f "$ms_m/secrets" || exit 74
  [ ! -e "$ms_m/secrets" ] || exit 74
fi
# Slurm may lose a scancel that meets the start of a job; the mark was there before it was called.
[ -z "$ms_term" ] && [ ! -e "$ms_m/cancel" ] || exit 143
true >"$ms_m/begun" || exit 73
if [ "$#" != 0 ]; then set -- env "$@"; fi
if [ "$ms_given" = file ]; then exec "$@" {container}/bin/sh ./.matterstack/command; fi
exec "$@" {container}/bin/sh -c "$ms_command"
}}
"""

# Where the worker ended of a signal before it could set its traps, nothing was begun and its end is written for it;
# one that was killed may have left a child that goes on.
END: Final = """
ms_work() {{
  trap 'ms_term=1' TERM
  trap : USR1
  if [ "$ms_restart" = 0 ]; then ( ms_set_up ) >stdout.txt 2>stderr.txt </dev/null
  else ( ms_set_up ) >>stdout.txt 2>>stderr.txt </dev/null
  fi
  ms_code=$?
  ms_end
  exit "$ms_code"
}}
( ms_work ) &
ms_pid=$!
# After a signal `wait` returns too soon, in bash even once more than there were signals.
while wait "$ms_pid"; ms_code=$?; [ -n "$ms_noted" ] && kill -0 "$ms_pid" 2>/dev/null; do :; done
if read -r ms_x ms_x ms_x ms_x ms_c ms_x <"$ms_m/exit"; then ms_code=$ms_c
elif [ "$ms_code" != 137 ] && [ ! -e "$ms_m/begun" ]; then ms_end
fi 2>/dev/null
exit "$ms_code"
""".format()
