"""A log that is rotated, cut or written in the middle of a letter is still followed."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumi_moai.launch.tail import Tail


def test_rotation_and_cutting(work):
    log, tail = work / "log", Tail()
    assert tail.read(log) == ""
    log.write_text("one\n")
    assert tail.read(log) == "one\n"
    log.rename(work / "log.1")
    assert tail.read(log) == ""
    log.write_text("two\n")
    assert tail.read(log) == "two\n"
    with open(log, "r+") as file:
        file.truncate(0)
        file.write("3\n")
    assert tail.read(log) == "3\n"
    with open(log, "a") as file:
        file.write("4\n")
    assert tail.read(log) == "4\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(min_size=1), cut=st.integers(0, 50))
def test_a_letter_cut_in_two_arrives_whole(work, text, cut):
    log, tail = work / "log", Tail()
    data = text.encode("utf-8", errors="replace")
    log.write_bytes(data[:cut])
    seen = tail.read(log)
    log.write_bytes(data)
    tail.inode = log.stat().st_ino
    assert seen + tail.read(log) == data.decode()
