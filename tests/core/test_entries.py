"""Entries in a file that grows: what was appended is read again, and damage costs the damaged entry alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.core.entries import Entries
from fedprune.core.errors import DataError

VALUES = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.integers(0, 10**9 - 1), VALUES), max_size=20))
def test_the_last_of_each_number_is_read_again(tmp_path_factory, kept):
    path = tmp_path_factory.mktemp("entries") / "file.jsonl"
    entries = Entries(path)
    for device, values in kept:
        entries.append(device, values)
    last = {device: {"device": device, **values} for device, values in kept}
    for each in (entries, Entries(path)):
        assert {device: each.read(device) for device in each} == last
        assert len(each) == len(last)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=5))
def test_damage_costs_no_entry_but_its_own(tmp_path_factory, place, damage):
    path = tmp_path_factory.mktemp("entries") / "file.jsonl"
    for device in range(5):
        Entries(path).append(device, {"value": f"of {device}"})
    whole = path.read_bytes()
    place = min(place, len(whole) - 1)
    path.write_bytes(whole[:place] + damage + whole[place + len(damage) :])
    first, last = (whole[: min(end, len(whole))].count(b"\n") for end in (place, place + len(damage)))
    kept = Entries(path)
    for device in set(range(5)) - set(range(first - 1, last + 2)):
        assert kept.read(device) == {"device": device, "value": f"of {device}"}


def test_what_a_kill_cut_off_spoils_nothing_that_comes_later(tmp_path):
    path = tmp_path / "file.jsonl"
    Entries(path).append(1, {"value": "whole"})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole.replace(b"1", b"2")[:cut])
        Entries(path).append(3, {"value": "later"})
        kept = Entries(path)
        assert kept.read(1)["value"] == "whole"
        assert kept.read(3)["value"] == "later"
        if 2 in kept and cut < len(whole) - 1:
            with pytest.raises(DataError, match="The entry of device 2 .* is damaged"):
                kept.read(2)
