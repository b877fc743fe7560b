import re

from hypothesis import given
from hypothesis import strategies as st

from matterstack.core.token import token

parts = st.tuples(
    st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.integers(1, 99),
)


@given(parts)
def test_a_token_can_be_a_job_name_of_any_scheduler(of):
    assert re.fullmatch(r"ms-[a-z2-7]{26}", token(*of))


@given(parts, parts)
def test_tokens_are_equal_for_the_same_attempt_only(one, other):
    assert (token(*one) == token(*other)) == (one == other)


def test_parts_do_not_run_into_each_other():
    assert token("a", "bc", "t", 1) != token("ab", "c", "t", 1)
    assert token("a", "b", "t1", 1) != token("a", "b", "t", 11)


def test_a_token_is_the_same_in_every_version():
    """A change here makes a restored journal run its jobs a second time."""
    assert token("journal", "run", "task", 1) == "ms-3lz5hslnqvsbyhgondz2gunwba"
