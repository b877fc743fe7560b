"""``matterstack``: arguments in, exit code out. 0: done, 1: the run or check failed, 2: could not work."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from matterstack import __version__

BY = ("run", "task", "profile", "account", "reason")
_EPILOG = "Exit codes: 0 done, 1 the run failed or a check did, 2 it could not be done, 130 interrupted."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="matterstack",
        description="Run campaigns of shell tasks so that nothing is lost and nothing runs twice.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"matterstack {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = _command(commands, "run", "running", "run a workflow, or go on with it where it was left")
    run.add_argument("workflow", metavar="WORKFLOW", help="a .py file that defines `workflow`, or a .yaml file")
    run.add_argument("--run", dest="run_id", metavar="ID", help="id of the run; by default the workflow's name")
    run.add_argument(
        "--rerun", metavar="TASK", action="append", default=[], help="run this task, and what depends on it, again"
    )
    run.add_argument("--replace", action="store_true", help="cancel live tasks that the workflow changes")
    only = run.add_mutually_exclusive_group()
    only.add_argument(
        "--dry-run", action="store_true", help="only print what would be submitted, every script and option of it"
    )
    only.add_argument("--estimate", action="store_true", help="only print the most core hours that it can use")
    _driving(run)

    resume = _command(commands, "resume", "running", "go on with a run, without its workflow file")
    _run_argument(resume)
    _driving(resume)

    status = _command(commands, "status", "showing", "show how a run stands")
    _run_argument(status)
    status.add_argument("--all", action="store_true", help="list every task, not only what runs or failed")
    _json(status)

    history = _command(commands, "history", "showing", "show the events of a run or of one task")
    _run_argument(history)
    history.add_argument("task", metavar="TASK", nargs="?", help="only this task's")
    _json(history)

    explain = _command(commands, "explain", "explaining", "say what is believed of a task, on which witnesses")
    explain.add_argument("run", metavar="RUN", help="the run")
    explain.add_argument("task", metavar="TASK", help="the task")
    explain.add_argument("--no-ask", action="store_true", help="from the journal alone, without asking the backend")
    _json(explain)

    logs = _command(commands, "logs", "showing", "print what a task wrote")
    logs.add_argument("run", metavar="RUN", help="the run")
    logs.add_argument("task", metavar="TASK", help="the task")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the task ends")
    logs.add_argument("--stderr", action="store_true", help="its standard error instead of its standard output")

    cancel = _command(commands, "cancel", "changing", "end tasks of a run, from any terminal")
    cancel.add_argument("run", metavar="RUN", help="the run")
    cancel.add_argument("tasks", metavar="TASK", nargs="*", help="the tasks; by default all")
    _json(cancel)

    retry = _command(commands, "retry", "changing", "try failed tasks again, and what failed with them")
    retry.add_argument("run", metavar="RUN", help="the run")
    retry.add_argument("tasks", metavar="TASK", nargs="*", help="the tasks; by default all that failed")
    _driving(retry, retrying=False)

    profiles = _command(
        commands, "profiles", "profiles", "list the profiles, show what one says, or check whether it works"
    )
    profiles.add_argument("action", metavar="ACTION", choices=("list", "show", "check"), help="list, show or check")
    profiles.add_argument(
        "name", metavar="NAME", nargs="?", help="the profile; by default all for list, else what a run would use"
    )
    _config(profiles)
    _json(profiles)

    _looking(commands)
    _reporting(commands)
    _keeping(commands)
    return top


def _looking(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    watch = _command(commands, "watch", "watch", "show on a terminal how a run goes; q leaves")
    _run_argument(watch)

    serve = _command(commands, "serve", "serving", "show the page of a run as it goes, to this machine only")
    _run_argument(serve)
    serve.add_argument("--port", metavar="N", type=int, default=0, help="the port to listen on; by default a free one")


def _reporting(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = _command(
        commands, "report", "usage", "write a run as one HTML page, or, with the word usage, what attempts used"
    )
    report.add_argument(
        "what",
        nargs="?",
        metavar="RUN|usage",
        help="the run to write a page of, by default the newest, or the word usage",
    )
    report.add_argument("-o", "--output", metavar="FILE", help="the page; by default RUN.html, - for standard output")
    usage = report.add_argument_group("report usage")
    usage.add_argument("--run", metavar="RUN", help="only this run's; by default all of the journal")
    usage.add_argument("--task", metavar="GLOB", help="only tasks of this name, or of a pattern such as 'relax-*'")
    usage.add_argument("--profile", metavar="P", help="only tasks that name this profile")
    usage.add_argument("--account", metavar="A", help="only what this account was charged")
    usage.add_argument(
        "--by",
        choices=BY,
        default="run",
        help="a line for each run, task (its name up to its number)"
        ", profile, account, or reason of failure; by default run",
    )
    _json(report)


def _keeping(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = _command(
        commands, "verify", "keeping", "check the journal: its hash chain, and its tables against its events"
    )
    _run_argument(verify)
    verify.add_argument("--files", action="store_true", help="compare the run's outputs on this machine as well")
    verify.add_argument(
        "--record-files", action="store_true", help="record first what is not recorded of the run's outputs"
    )
    verify.add_argument("--head", action="store_true", help="print the head of the run's chain, and nothing else")
    verify.add_argument("--expect", metavar="HEAD", help="check that a head, printed earlier, is still in the chain")
    _json(verify)

    export = _command(commands, "export", "exporting", "write where a run's results come from, an attempt a record")
    _run_argument(export)
    export.add_argument(
        "--format",
        choices=("jsonl", "csv", "rocrate"),
        default="jsonl",
        help="lines of JSON, a table, or a Workflow Run RO-Crate; by default jsonl",
    )
    export.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="must not exist; by default RUN.jsonl, RUN.csv or the directory RUN.crate"
        "; - for standard output, a name that ends in .zip for a zipped crate",
    )
    export.add_argument("--license", metavar="URL", default="", help="license to state in a crate")

    backup = _command(commands, "backup", "keeping", "copy the journal, also while it is written")
    backup.add_argument("target", metavar="FILE", help="the copy; must not exist")
    _json(backup)

    clean = _command(commands, "clean", "keeping", "remove the directories of ended attempts, except declared outputs")
    clean.add_argument("run", metavar="RUN", help="the run")
    clean.add_argument("--all", action="store_true", help="remove declared outputs as well")
    clean.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    _json(clean)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, module: str, what: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".", epilog=_EPILOG)
    made.add_argument(
        "--journal",
        metavar="PATH",
        help="by default .matterstack/journal.db at or above the current directory",
    )
    made.set_defaults(module=module)
    return made


def _run_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", nargs="?", help="the run; by default the newest")


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="profile file to look into first")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _driving(command: argparse.ArgumentParser, *, retrying: bool = True) -> None:
    command.add_argument("--profile", metavar="P", help="name of the profile to run with")
    _config(command)
    command.add_argument("--fail-fast", action="store_true", help="after the first failure submit nothing more")
    command.add_argument(
        "--budget", metavar="CORE_HOURS", help="after so many core hours submit nothing more; what runs goes on"
    )
    command.add_argument("--quiet", "-q", action="store_true", help="no progress, only the result")
    if retrying:
        command.add_argument("--retry-failed", action="store_true", help="try all failed tasks again")
        command.add_argument(
            "--retry-interrupted",
            action="store_true",
            help="try those again of which it is not known how they ended",
        )
    _json(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code of the command line ``argv``."""
    arguments = parser().parse_args(argv)
    # Imports and specs make many objects that live to the end; looking through them for cycles is a tenth of the start.
    gc.set_threshold(100_000, 50, 100)
    try:
        command = getattr(import_module(f"matterstack.cli.{arguments.module}"), arguments.command)
        code: int = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read us has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"matterstack: {error.strerror or error}: {error.filename}. Nothing more was done.", file=sys.stderr)
        return 2
    except Exception as error:
        if not is_ours(error):
            raise
        print("\n".join([f"matterstack: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 2
    return code


def is_ours(error: Exception) -> bool:
    """Return whether the error was raised on purpose; told by its home, for --help need not import that."""
    return any(kind.__module__ in ("matterstack.errors", "journal.errors") for kind in type(error).__mro__)


if __name__ == "__main__":
    sys.exit(main())
