"""The targets of scripts/fuzz, with inputs that have the shape of what they read, and are wrong here and there."""

from __future__ import annotations

import tarfile
from contextlib import suppress

import yaml
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
FEWER = settings(MANY, max_examples=60)  # each starts a shell or makes files

# Numbers that a reader may take for others, in the places of numbers.
NUMBERS = st.sampled_from(
    [
        *("0", "1", "12", "-1", "+1", "1_0", "1e9", "1e999", "nan", "inf", "0x1f", "1.5", "00012", "", " 1", "1:0"),
        *("\u0663", "\xb2", "\u0661\u0662", "9" * 13, "9" * 5000, "4294967294", "Unknown", "N/A", "UNLIMITED"),
    ]
) | st.integers(-(10**20), 10**20).map(str)
TEXTS = st.text(max_size=12) | st.sampled_from(["", "|", "#", ".", "\n", "\r", "\x85", "\u2028", "\0", "\x1b[31m"])
IDS = st.one_of(
    NUMBERS,
    st.tuples(NUMBERS, st.sampled_from(["_", "+", ".", ";", "_["]), NUMBERS, st.sampled_from(["", "]"])).map("".join),
    st.lists(NUMBERS | st.sampled_from(list("-,:%[]")), max_size=6).map(lambda parts: f"12_[{''.join(parts)}]"),
)
WORDS = st.sampled_from(
    ["PENDING", "RUNNING", "CG", "COMPLETED", "FAILED", "CANCELLED by 1000", "CANCELLED+", "OUT_OF_ME+", "+", "NEW"]
)
FIELDS = st.one_of(NUMBERS, TEXTS, IDS, WORDS)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def joined(*fields, by="|", end="\n"):
    return st.tuples(*(one | FIELDS if right else FIELDS for one, right in fields)).map(
        lambda parts: by.join(parts) + end
    )


def right(*strategies):
    return [(one, True) for one in strategies]


# ---- anything -----------------------------------------------------------------------------------------


@MANY
@given(st.binary(max_size=300))
def test_no_bytes_disturb_a_reader_of_text(data):
    for name in ("squeue", "sacct", "sbatch", "site", "complaint", "records", "ids"):
        TARGETS[name](data)


@FEWER
@given(st.binary(max_size=600))
def test_no_bytes_disturb_a_reader_of_files_or_a_shell(data):
    for name in ("profiles", "workflow", "tar", "shell"):
        TARGETS[name](data)


# ---- rows, records and ids ----------------------------------------------------------------------------

HEADS = st.tuples(TEXTS, st.just("#"), st.sampled_from(["N/A", "", "3", "[0-3]"]) | NUMBERS).map("".join)
QUEUE = joined(*right(HEADS, IDS, WORDS, TEXTS, NUMBERS, st.just(".")))
CODES = st.tuples(NUMBERS, st.just(":"), NUMBERS).map("".join)
ACCOUNT = joined(*right(NUMBERS, IDS, WORDS, CODES, NUMBERS, NUMBERS, NUMBERS, TEXTS, TEXTS, st.just("")))


@MANY
@given(st.lists(QUEUE | TEXTS, max_size=5).map("".join))
def test_rows_of_the_queue(text):
    TARGETS["squeue"](encoded(text))


@MANY
@given(st.lists(ACCOUNT | TEXTS, max_size=5).map("".join))
def test_rows_of_accounting(text):
    TARGETS["sacct"](encoded(text))


TOKENS = st.sampled_from(["ms-k3abcdefghijklmnopqrstuvwx", "-"]) | TEXTS
CLAIM = joined(*right(st.just("ms1"), TOKENS, IDS, NUMBERS, NUMBERS, TEXTS, NUMBERS, st.just(".")), by=" ", end="")
FLAGS = st.sampled_from(["-", "setup", "limit-near", "setup,limit-near", ",", "-,-"])
EXIT = joined(
    *right(st.just("ms1"), TOKENS, IDS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TEXTS, FLAGS, st.just(".")), by=" ", end=""
)
IDENTITY = joined(*right(TOKENS, TEXTS, NUMBERS | st.just("-"), NUMBERS | st.just("-"), st.just(".")), by=" ", end="")


@MANY
@given(st.one_of(CLAIM, EXIT, IDENTITY))
def test_records(line):
    TARGETS["records"](encoded(line))


PARTS = st.sampled_from(["run", "a", "1", "..", ".", "", ".matterstack", "-rf", "a b", "x@y", "stdout.txt"]) | TEXTS
PATHS = st.lists(PARTS, max_size=4).map("/".join)


@MANY
@given(st.one_of(IDS, PATHS, st.tuples(IDS, st.just("@"), PATHS).map("".join)))
def test_ids_and_names(text):
    TARGETS["ids"](encoded(text))


SAID = st.sampled_from(
    [
        *("Submitted batch job 12", "12;c1", "12", "13", "sbatch: error: ", "Batch job submission failed: "),
        *("Unspecified error", "Invalid partition name specified", "Socket timed out", "QOSMaxSubmitJobPerUserLimit"),
        *("Killed", "\n", "\u2028", "\x85", "sbatch: unrecognized option '--x'"),
    ]
)
SAYINGS = st.lists(SAID | TEXTS.map(lambda text: text.replace("\0", "")), max_size=6).map("".join)


@MANY
@given(st.sampled_from(["", "0", "1", "2", "124", "137", "255"]), SAYINGS, SAYINGS)
def test_replies_of_sbatch(code, stdout, stderr):
    TARGETS["sbatch"](encoded(f"{code}\0{stdout}\0{stderr}"))


# ---- files --------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    TEXTS,
    st.dates(),
    st.sampled_from(
        ["local", "slurm", "~nobody-at-all/x", "/w", "../x", "a" * 300, "always", "date", "x\ny", "=", "<<"]
    ),
)
KEYS = st.sampled_from(
    [
        *("backend", "workspace_root", "ssh", "slurm", "results_root", "retrieve", "waits", "max_array", "retry"),
        *("hostname", "port", "key_filename", "account", "modules", "prologue", "poll_min_s", "grace_s", "mail-type"),
        *("task_id", "command", "files", "env", "dependencies", "cores", "memory_gb", "time_limit_minutes", "outputs"),
        *("path", "task", "output", "image", "secrets", "max_attempts", "profile", "gpus"),
    ]
)
DATA = st.recursive(
    SCALARS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(KEYS | SCALARS.map(str), inside, max_size=4),
    max_leaves=12,
)
PROFILE = st.fixed_dictionaries(
    {"backend": st.sampled_from(["local", "slurm"]), "workspace_root": st.just("/w") | SCALARS},
    optional={
        "ssh": st.fixed_dictionaries({"hostname": st.just("h")}, optional={"port": SCALARS, "known_hosts": SCALARS}),
        "slurm": st.dictionaries(KEYS, DATA, max_size=2),
        "results_root": SCALARS,
        "waits": st.dictionaries(st.just("poll_min_s"), SCALARS),
        "retry": SCALARS,
    },
)
TASK = st.fixed_dictionaries(
    {"task_id": st.just("a") | SCALARS, "command": st.just("date") | SCALARS},
    optional={
        "files": st.dictionaries(st.just("x") | TEXTS, DATA, max_size=2),
        "env": st.dictionaries(st.just("A") | TEXTS, SCALARS, max_size=2),
        "dependencies": st.lists(st.just("a") | TEXTS, max_size=2),
        **dict.fromkeys(("cores", "memory_gb", "gpus", "time_limit_minutes", "image", "retry", "profile"), SCALARS),
        **dict.fromkeys(("outputs", "secrets"), st.lists(TEXTS, max_size=2)),
    },
)


def as_yaml(data) -> bytes:
    return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "replace")


@MANY
@given(st.dictionaries(st.just("h") | TEXTS, PROFILE | DATA, min_size=1, max_size=2) | DATA)
def test_profiles(found):
    TARGETS["profiles"](as_yaml({"profiles": found}))


@MANY
@given(st.lists(TASK | DATA, min_size=1, max_size=3) | DATA)
def test_workflows(tasks):
    TARGETS["workflow"](as_yaml({"tasks": tasks}))


TAGS = st.sampled_from(
    ["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "str", "map", "x"]
)
PLAIN = st.from_regex(r"[-+0-9a-zA-Z_:.~=T<]{0,14}", fullmatch=True) | st.dates().map(lambda day: f"{day}x"[:10])


@MANY
@given(TAGS | st.just(""), PLAIN)
def test_scalars_of_yaml(tag, text):
    """What the tags and patterns of YAML make of a word."""
    value = f"!!{tag} {text}" if tag else text
    TARGETS["workflow"](f"tasks:\n- task_id: a\n  command: b\n  image: {value}\n".encode())
    TARGETS["profiles"](f"profiles: {{h: {{backend: local, grace_s: {value} }}}}\n".encode())


# ---- streams ------------------------------------------------------------------------------------------

A = "run/a/1"
GOOD = {"x": b"of a", "y": b"y of a", "d/e": b"", "l" * 200: b"long" * 300, "door/x": b"through a link"}
KINDS = st.sampled_from([bytes([byte]) for byte in b"00000\x001234567LKxgSDVM"])
SIZES = st.sampled_from(["-1", "9" * 30, "9" * 5000, "\xb2", "0", "4", "512", "1e3", "1_0"])


@st.composite
def members(draw) -> bytes:
    name = draw(st.sampled_from([*GOOD, "../x", "../../../outside", ".matterstack/exit", "n" * 256]) | PATHS)
    info = tarfile.TarInfo(f"{A}/{name}".replace("\0", ""))
    data = draw(st.just(GOOD.get(name, b"bad")) | st.binary(max_size=600))
    info.size, info.type = len(data), draw(KINDS)
    info.pax_headers = draw(st.dictionaries(st.just("size"), SIZES, max_size=1))
    form = tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT
    with suppress(ValueError):
        return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)
    return data


@MANY
@given(
    st.integers(0, 31), st.lists(members(), max_size=5), st.none() | st.tuples(st.integers(0), st.binary(max_size=9))
)
def test_streams_of_a_cluster(how, found, change):
    stream = bytearray(b"".join(found) + bytes(1024))
    if change is not None:
        at = change[0] % len(stream)
        stream[at : at + len(change[1])] = change[1]
    TARGETS["tar"](bytes([how]) + bytes(stream))


# ---- shells -------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"'",
        b'"',
        b"\\",
        b"`id`",
        b"$(id)",
        b"$IFS",
        b"\n",
        b"\r",
        b"\x81",
        b"\x88",
        b"\xff",
        b"\x01",
        b"#",
        b"=",
        b"EOF",
    ]
)
BYTES = st.lists(PIECES | st.binary(max_size=4).map(lambda data: data.replace(b"\0", b"")), max_size=6).map(b"".join)


@FEWER
@given(st.sampled_from([b"", b"x", b"xx", b"xxx"]), st.lists(BYTES, min_size=3, max_size=6))
def test_texts_in_a_shell(which, texts):
    TARGETS["shell"](b"\0".join([which, *texts]))
