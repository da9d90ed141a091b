"""Times, sizes and core lists, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai.errors import RequestError
from lumi_moai.units import (
    format_cores,
    format_gib,
    format_minutes,
    format_seconds,
    parse_cores,
    parse_gib,
    parse_minutes,
)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30", 30), ("1:30", 2), ("12:00:00", 720), ("1-0", 1440), ("1-12:30", 2190), ("2-00:00:00", 2880),
        ("90m", 90), ("12h", 720), ("2d", 2880), ("00:00:01", 1),
    ],
)  # fmt: skip
def test_slurm_times(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-5", "1.5h", "0", "00:00:00", "١٢", "1-"])
def test_what_is_no_time(text):
    with pytest.raises(RequestError, match="time"):
        parse_minutes(text)


@given(st.integers(1, 10**6))
def test_minutes_round_trip(minutes):
    assert parse_minutes(format_minutes(minutes)) == minutes


@given(st.integers(0, 10**8))
def test_seconds_read_as_times(seconds):
    text = format_seconds(seconds)
    assert seconds == 0 or parse_minutes(text) == -(-seconds // 60)


@pytest.mark.parametrize(
    ("text", "gib"), [("480G", 480), ("512M", 0.5), ("1T", 1024), ("1024", 1), ("64GiB", 64), ("64gb", 64)]
)
def test_slurm_sizes(text, gib):
    assert parse_gib(text) == gib


@pytest.mark.parametrize("text", ["", "G", "-1G", "1 G G", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(RequestError, match="memory"):
        parse_gib(text)


@given(st.integers(1, 5000).map(lambda n: n / 1024))
def test_sizes_round_trip(gib):
    assert parse_gib(format_gib(gib)) == pytest.approx(gib)


@given(st.sets(st.integers(0, 300)))
def test_cores_round_trip(cores):
    assert not cores or set(parse_cores(format_cores(cores))) == cores


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "0-99999999"])
def test_what_is_no_list_of_cores(text):
    with pytest.raises(RequestError, match="cores"):
        parse_cores(text)
