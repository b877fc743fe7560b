import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matterstack.core import events as ev
from matterstack.core.usage import Usage

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
plain = st.none() | st.booleans() | st.integers(-9, 9) | texts
BY_TYPE = {
    int: st.integers(0, 2**31),
    str: texts,
    bool: st.booleans(),
    float | None: st.none() | st.floats(0, 4e9),
    int | None: st.none() | st.integers(0, 2**31),
    Usage: st.builds(Usage),
    dict[str, ev.FileSum]: st.dictionaries(texts, st.builds(ev.FileSum, texts, st.integers(0, 2**40)), max_size=3),
    dict[str, int]: st.dictionaries(texts, st.integers(0, 9), max_size=3),
}


def any_event(kind):
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, **{f.name: BY_TYPE.get(f.type, st.dictionaries(texts, plain, max_size=3)) for f in fields})


@pytest.mark.parametrize("kind", ev.TYPES.values(), ids=list(ev.TYPES))
def test_an_event_survives_the_journal(kind):
    @given(any_event(kind))
    def check(event):
        assert ev.decode(kind.__name__, ev.encode(event)) == event

    check()


def test_every_event_class_can_be_decoded():
    assert set(ev.TYPES.values()) == set(ev.Event.__subclasses__())


@pytest.mark.parametrize("name", ev.TYPES)
def test_a_type_is_called_as_its_class_and_says_what_it_means(name):
    assert ev.TYPES[name].__name__ == name
    assert ev.TYPES[name].__doc__


@given(any_event(ev.TaskFailed), st.dictionaries(st.from_regex(r"new_[a-z]{1,5}", fullmatch=True), plain, max_size=3))
def test_fields_of_a_newer_version_are_ignored(event, extra):
    data = {**json.loads(ev.encode(event)), **extra}
    assert ev.decode("TaskFailed", json.dumps(data)) == event


def test_defaults_are_not_written():
    assert ev.encode(ev.TaskCompleted()) == b"{}"
    assert ev.encode(ev.TaskFailed("TIMEOUT")) == b'{"reason":"TIMEOUT"}'


def test_an_unknown_type_is_refused():
    with pytest.raises(KeyError):
        ev.decode("TaskPainted", b"{}")


@pytest.mark.parametrize("data", [b"{}", b'{"reason":5}', b"[]", b"not json"])
def test_data_that_is_not_of_its_type_is_refused(data):
    with pytest.raises(msgspec.DecodeError):
        ev.decode("TaskFailed", data)


def test_an_event_cannot_be_changed():
    with pytest.raises(AttributeError):
        ev.JobSubmitted("7").job_id = "8"
