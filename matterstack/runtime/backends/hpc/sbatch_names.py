"""The long names of sbatch's options: those that MatterStack sets itself, and those that a profile may set."""

from __future__ import annotations

from typing import Final

# Why nobody else may set them. sbatch takes any beginning of a name for it, so beginnings of these are refused too.
OWNED: Final = {
    "array": "job arrays are made by itself",
    "chdir": "a task runs in its own directory",
    "cpus-per-task": "give the task cores",
    "dependency": "dependencies of tasks are kept by the run",
    "error": "a task's standard error goes to stderr.txt in its directory",
    "export": "a job begins with a clean environment; give the task env, or the profile a prologue",
    "export-file": "a job begins with a clean environment; give the task env, or the profile a prologue",
    "gpus": "give the task gpus, or the profile gres",
    "help": "nothing would be submitted",
    "hold": "a held job would wait for ever",
    "input": "a task reads from /dev/null; give it files",
    "job-name": "jobs are found by their name",
    "mem": "give the task memory_gb",
    "no-requeue": "it is the default; `requeue: true` allows it",
    "open-mode": "a task's output is kept apart by attempt",
    "output": "a task's output goes to stdout.txt in its directory",
    "parsable": "it is set already",
    "signal": "the time limit is watched already",
    "test-only": "nothing would be submitted; `matterstack run --dry-run` shows the scripts",
    "time": "give the task a time_limit_minutes",
    "usage": "nothing would be submitted",
    "version": "nothing would be submitted",
    "wait": "a run waits by itself",
    "wrap": "the script is written by itself",
}

# Of Slurm 20.11 to 26.05. Others may be a site's own; these are known not to be misspelt ones.
FREE: Final = frozenset(
    """
    acctg-freq batch bb bbf begin cluster-constraint clusters comment consolidate-segments container-id contiguous
    core-spec cores-per-socket cpu-freq cpus-per-gpu deadline delay-boot distribution exclude exclusive extra
    extra-node-info get-user-env gid gpu-bind gpu-freq gpus-per-node gpus-per-socket gpus-per-task gres-flags hint
    ignore-pbs kill-on-invalid-dep licenses mail-type mail-user mcs-label mem-bind mem-per-cpu mem-per-gpu mincpus
    network nice no-kill nodefile nodelist ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket
    oom-kill-step overcommit oversubscribe power prefer priority profile propagate quiet reboot reservation resv-ports
    segment sockets-per-node spread-job stepmgr switches tasks-per-node thread-spec threads-per-core time-min tmp
    tres-bind tres-per-job tres-per-task uid umask use-min-nodes verbose wait-all-nodes wckey
    """.split()  # noqa: SIM905  # a list of words reads best as words
)
