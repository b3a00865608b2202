"""Samples that can't be used: counted, listed once, and too many of them end the run."""

import json

import pytest

from mmunify.data.bad_samples import ALWAYS_ALLOWED, MAX_LISTED, BadSample, BadSamples
from mmunify.errors import DataError


def bad(*numbers: int) -> list[BadSample]:
    return [BadSample(number=n, id=f"s{n}", reason=f"picture {n}.png is empty") for n in numbers]


def test_a_few_never_end_a_run():
    told = BadSamples(0.01)
    for number in range(ALWAYS_ALLOWED):
        told.add(0, bad(number))
    with pytest.raises(DataError, match=r"11 of 11 samples can't be used, more than bad_samples=0.01 allows") as caught:
        told.add(0, bad(99))
    assert "s0: picture 0.png is empty" in str(caught.value) and "s99" in str(caught.value)


def test_the_limit_is_a_share_of_what_was_read():
    told = BadSamples(0.01)
    told.add(1989, bad(*range(11)))
    told.add(0, [])
    with pytest.raises(DataError, match="21 of 2010"):
        told.add(0, bad(*range(20, 30)))


def test_none_may_be_allowed():
    with pytest.raises(DataError, match="1 of 1001 samples.*bad_samples=0 allows"):
        BadSamples(0).add(1000, bad(1))


def test_each_is_listed_once_and_some_only_counted():
    told = BadSamples(0.9)
    assert [one.id for one in told.add(500, bad(1, 2, 1))] == ["s1", "s2"]
    assert told.add(0, bad(2)) == []
    assert len(told.add(0, bad(*range(10, 60)))) == MAX_LISTED - 2
    assert (told.num_read, told.num_bad, len(told.listed)) == (554, 54, MAX_LISTED)


def test_counts_survive_as_plain_data(caplog):
    told, again = BadSamples(), BadSamples()
    told.warn(told.add(5, bad(3)))
    again.load_state_dict(json.loads(json.dumps(told.state_dict())))
    assert again.state_dict() == told.state_dict() and again.listed == told.listed
    assert caplog.messages == ["left out s3: picture 3.png is empty"]


def test_where_nothing_can_be_used_the_run_ends_at_once():
    with pytest.raises(DataError, match=r"none of 2 samples drawn one after the other(.|\n)*s1: (.|\n)*s2: "):
        BadSamples(0.5).refuse(bad(1, 2))
