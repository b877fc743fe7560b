import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from matterstack.core.spec import FileDigest, from_spec, spec_hash, to_spec
from matterstack.core.workflow import RETRIES, OutputRef, Task
from matterstack.errors import SpecError

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
commands = texts.filter(str.strip)
env_names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True)
file_names = st.from_regex(r"[a-z]{1,4}(\.[a-z]{1,3})?", fullmatch=True)
positive = st.none() | st.floats(0.001, 1e6)
sources = st.one_of(
    texts,
    st.builds(Path, st.from_regex(r"/[a-z]{1,6}", fullmatch=True)),
    st.builds(OutputRef, ids, file_names),
)
tasks = st.builds(
    Task,
    command=commands,
    task_id=ids,
    files=st.dictionaries(file_names, sources, max_size=3),
    env=st.dictionaries(env_names, texts, max_size=2),
    dependencies=st.lists(ids, unique=True, max_size=3),
    cores=st.integers(1, 64),
    memory_gb=positive,
    gpus=st.integers(0, 8),
    time_limit_minutes=positive,
    image=st.none() | texts,
    allow_failure=st.booleans(),
    allow_dependency_failure=st.booleans(),
    outputs=st.lists(file_names, max_size=2),
    secrets=st.lists(env_names, max_size=2),
    retry=st.sampled_from(RETRIES),
    max_attempts=st.integers(1, 9),
    profile=st.sampled_from(["", "hpc_prod"]),
)
PIN = FileDigest("ab" * 32, 10, 20, 30)
BASE = Task("python relax.py", "relax", files={"relax.py": Path("/in/relax.py"), "note": "text"})


def hash_of(task, digest=PIN, where="/in/relax.py"):
    return spec_hash(to_spec(task, {where: digest}))


@given(tasks)
def test_a_task_survives_the_journal(task):
    digests = {str(source): PIN for source in task.files.values() if isinstance(source, Path)}
    recorded = json.loads(msgspec.json.encode(to_spec(task, digests)))
    assert from_spec(task.task_id, recorded) == (task, digests)
    assert spec_hash(recorded) == spec_hash(to_spec(task, digests))


def test_defaults_are_left_out_so_that_a_journal_stays_small():
    assert to_spec(Task("true", "a"), {}) == {"command": "true"}


def test_an_output_of_another_task_is_kept_by_name():
    spec = to_spec(Task("true", "a", files={"x": OutputRef("up", "y")}), {})
    assert spec["files"] == {"x": {"task": "up", "output": "y"}}


def test_the_hash_depends_on_the_content_of_a_path_but_not_on_where_it_lies_or_its_stat():
    moved = replace(BASE, files={"relax.py": Path("/elsewhere/r.py"), "note": "text"})
    assert hash_of(moved, where="/elsewhere/r.py") == hash_of(BASE)
    assert hash_of(BASE, FileDigest(PIN.sha256, 11, 21, 31)) == hash_of(BASE)
    assert hash_of(BASE, FileDigest("cd" * 32, 10, 20, 30)) != hash_of(BASE)


OTHER = {
    "command": "python other.py",
    "files": {"relax.py": Path("/in/relax.py"), "note": "other"},
    "env": {"A": "1"},
    "dependencies": ["b"],
    "cores": 2,
    "memory_gb": 1.5,
    "gpus": 1,
    "time_limit_minutes": 5.0,
    "image": "img.sif",
    "allow_failure": True,
    "allow_dependency_failure": True,
    "outputs": ["*.json"],
    "secrets": ["TOKEN"],
    "retry": "always",
    "max_attempts": 4,
    "profile": "hpc_prod",
}


@pytest.mark.parametrize("field", OTHER)
def test_the_hash_depends_on_every_field(field):
    assert hash_of(replace(BASE, **{field: OTHER[field]})) != hash_of(BASE)


def test_every_field_but_the_id_is_tried():
    assert {*OTHER, "task_id"} == set(Task.__struct_fields__)


def test_the_hash_depends_on_the_name_a_file_gets():
    assert hash_of(replace(BASE, files={"r.py": Path("/in/relax.py"), "note": "text"})) != hash_of(BASE)


def test_the_order_of_files_and_variables_does_not_matter():
    turned = replace(BASE, files={"note": "text", "relax.py": Path("/in/relax.py")}, env={"B": "2", "A": "1"})
    assert hash_of(turned) == hash_of(replace(BASE, env={"A": "1", "B": "2"}))


def test_the_hash_is_stable_over_versions():
    """Half of what ``printf '{"command":"true"}' | sha256sum`` prints. With another, every task runs again."""
    assert spec_hash({"command": "true"}) == "13c76770415cddd7b42ccc58c65f6807"


def test_text_and_a_file_of_the_same_content_are_not_the_same():
    assert spec_hash(to_spec(Task("true", "a", files={"x": "/in/y"}), {})) != spec_hash(
        to_spec(Task("true", "a", files={"x": Path("/in/y")}), {"/in/y": PIN})
    )


@pytest.mark.parametrize("recorded", [{"command": "true", "colour": "red"}, {}, {"command": ""}])
def test_a_recorded_object_that_is_no_spec_is_refused(recorded):
    with pytest.raises(SpecError, match="task 'a'"):
        from_spec("a", recorded)
