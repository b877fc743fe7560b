"""What sbatch's reply means. Only words that prove it are a refusal; whatever else, the job may exist."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct


class Accepted(Struct, frozen=True):
    """sbatch took it. ``slurm_id`` is without the cluster; ``warnings``: what it said beside."""

    slurm_id: str
    cluster: str = ""
    warnings: str = ""


class Refused(Struct, frozen=True):
    """Nothing was submitted, and the same request would be refused again; sbatch's words."""

    words: str


class Held(Struct, frozen=True):
    """Nothing was submitted, and the same request may be taken later (limits, a partition that is down)."""

    words: str


class Doubt(Struct, frozen=True):
    """It may have been submitted; only a look-up by name decides."""

    words: str


Reply = Accepted | Refused | Held | Doubt

_IDS: Final = (
    re.compile(
        r"(?:sbatch: )?submitted batch job ([0-9]{1,10})(?: on cluster ([A-Za-z0-9_.-]{1,64}))?",
        re.IGNORECASE | re.ASCII,
    ),
    re.compile(r"([0-9]{1,10})(?:;([A-Za-z0-9_.-]{1,64}))?", re.ASCII),
)
_PREFIX: Final = re.compile(r"^sbatch: (?:(?:error|fatal): )?", re.IGNORECASE)
_FINAL: Final = "batch job submission failed: "
_WORDS_MAX: Final = 500  # characters of a reply that are kept
_OF_TIMEOUT: Final = 124  # of the command that gives sbatch its time
_KILLED: Final = 128  # exit codes above are a shell's for a signal
_OF_SSH: Final = 255  # also sbatch's own for options that it does not take

# sbatch never reached the controller, or the controller said no; later it may say yes.
_LATER: Final = re.compile(
    r"""
    (?:qos|assoc)\w{0,64}submit\w{0,64}limit
    | maxjobcount\ limit\ reached
    | resource\ temporarily\ unavailable
    | system\ submissions\ disabled
    | required\ partition\ not\ available
    | backup\ controller\ in\ standby
    | i/o\ error\ writing\ script
    | invalid\ authentication\ credential
    | protocol\ authentication\ error
    | rate\ limit\ exceeded
    | can't\ be\ reached\ now
    | no\ clusters\ can\ be\ reached\ now
    | could\ not\ establish\ a\ configuration\ source
    | unable\ to\ process\ configuration\ file
    | sbatch:?\ (?:command\ )?not\ found
    """,
    re.VERBOSE,
)
# The controller's or sbatch's own verdict on the request itself. Spans are short: long ones could take for hours.
_NEVER: Final = re.compile(
    r"""
    invalid\ partition | invalid\ account | invalid\ qos | invalid\ feature | invalid\ generic\ resource
    | invalid\ trackable\ resource | invalid\ job\ array | invalid\ license | invalid\ node\ name | invalid\ wckey
    | invalid\ user\ id | invalid\ group\ id | invalid\ --\S{1,256}\ specification | invalid\ cluster
    | access/permission\ denied | access\ denied\ to\ requested\ reservation | not\ permitted\ to\ use
    | requested\ node\ configuration\ is\ not\ available | requested\ time\ limit\ is\ invalid
    | requested\ partition\ configuration | requested\ reservation\ is\ invalid | requested\ operation\ not\ supported
    | memory\ required\ by\ task\ is\ not\ available | memory\ specification\ can\ not\ be\ satisfied
    | count\ specification\ invalid | more\ processors\ requested\ than\ permitted
    | job\ dependency\ problem | no\ partition\ specified | pathname\ of\ a\ file.{0,4096}?too\ long
    | without\ the\ current\ working\ directory | script\ is\ empty | does\ not\ look\ like\ a\ batch\ script
    | contains\ dos\ line\ breaks | unable\ to\ open\ file | no\ cluster\ '.{0,64}?'\ known
    | invalid\ time\ specification
    | unrecognized\ option | invalid\ option | requires\ an\ argument | doesn't\ allow\ an\ argument
    | option\ '.{0,256}?'\ is\ ambiguous | (?:qos|assoc)\w{0,64}limit
    """,
    re.VERBOSE,
)
# The answer was lost on the way, so whatever else is said proves nothing.
_LOST: Final = re.compile(
    r"timed\ out|receive\ failure|send\ failure|connect\ failure|unable\ to\ contact|zero\ bytes"
    r"|unexpected\ message|connection\ (?:reset|closed|refused)|broken\ pipe|lost\ connection|terminated|killed"
)
# Where no line says which limit it was, it may be the number of jobs; with such a line that one decides.
_POLICY: Final = "job violates accounting/qos policy"


def read_reply(exit_code: int | None, stdout: str, stderr: str) -> Reply:
    """Return what sbatch's answer means, with or without ``--parsable``.

    Args:
        exit_code: Of sbatch; None where it is not known.
        stdout: Its output; a site's banner may surround it.
        stderr: Its messages; a line of error is no refusal where a job id was given, too.
    """
    ids, said = _ids(stdout), _said(stderr)
    if exit_code == 0:
        if len(ids) == 1:
            (job,) = ids
            return Accepted(*job, said)
        return Doubt(said or (f"{len(ids)} job ids in one reply" if ids else "no job id in the reply"))
    if ids:
        return Doubt(said or f"sbatch gave a job id and ended with exit code {exit_code}")
    return _refusal(exit_code, said, f"{stdout}\n{stderr}".lower()) or Doubt(_unclear(exit_code, said))


def _ids(stdout: str) -> set[tuple[str, str]]:
    lines = [line.strip() for line in stdout.splitlines()]
    for form in _IDS:
        if found := {(whole[1], whole[2] or "") for line in lines if (whole := form.fullmatch(line))}:
            return found
    return set()


def _said(stderr: str) -> str:
    """Return sbatch's own lines without their prefix, or all where none has one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    own = [_PREFIX.sub("", line) for line in lines if _PREFIX.match(line)]
    return "; ".join(own or lines)[-_WORDS_MAX:]


def _refusal(exit_code: int | None, words: str, text: str) -> Refused | Held | None:
    ended_itself = exit_code is not None and exit_code != _OF_TIMEOUT and not _KILLED < exit_code < _OF_SSH
    if not ended_itself or _LOST.search(text):
        return None
    if _LATER.search(text):
        return Held(words)
    if _NEVER.search(text):
        return Refused(words)
    _, _, cause = text.rpartition(_FINAL)
    if cause.startswith(_POLICY):
        return Held(words)
    # A site's own rules refuse with an error of their own and no cause; alone that says nothing.
    own_rules = cause.startswith("unspecified error") and text.count("sbatch: error: ") > 1
    return Refused(words) if own_rules else None


def _unclear(exit_code: int | None, said: str) -> str:
    return said or ("sbatch gave no answer" if exit_code is None else f"sbatch said nothing, exit code {exit_code}")
