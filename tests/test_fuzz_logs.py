"""Recorded logs and accounting, cut, joined and bitten: nothing may raise, and columns must say what patterns say.

A few seconds with every test; `make fuzz` takes as many as `LUMI_MOAI_FUZZ_SECONDS` says. A failure shows its seed, and
`LUMI_MOAI_FUZZ_SEED` starts from there.
"""

import os
import random
import time

from test_logs import INDEX, RECORDED
from test_logs_columns import both
from test_logs_epochs import WITHIN
from test_logs_epochs import written as within
from test_logs_strangers import KERAS, written
from test_logs_strangers import LOGS as OTHER
from test_sacct import LUMI
from test_sacct import RECORDED as ACCOUNTS

from lumi_moai import sacct
from lumi_moai.gather.runs import collect
from lumi_moai.report import as_csv, as_dict, as_text

SECONDS = float(os.environ.get("LUMI_MOAI_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("LUMI_MOAI_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
LOGS = [(RECORDED / name).read_bytes() for name in sorted(INDEX)]
LOGS += [(written(text) * 20).encode() for text in (*(lines for lines, _ in OTHER.values()), *KERAS.values())]
LOGS += [within(line, (1, 2, 3)).encode() for line in WITHIN.values()]
TABLES = [path.read_bytes() for path in sorted(ACCOUNTS.iterdir()) if path.suffix in (".txt", ".json", ".csv")]
WORDS = [
    b"nan", b"inf", b"-1", b"1e999", b"9" * 40, b"\0", b"\r", b"\x1b[", b"\n", b": ", b"|", b"{", b'"', b"\xff\xfe", b"12: ",
    b"error: *** JOB 1 ON n CANCELLED AT x DUE TO TIME LIMIT ***", b"No plugin found (librccl-net.so)", b"Killed\n",
]  # fmt: skip


def bitten(chance, sources):
    """Some pieces of *sources*, joined, with words put into them and bytes changed."""
    data = bytearray()
    for _ in range(chance.randrange(1, 5)):
        source = chance.choice(sources)
        begin = chance.randrange(len(source))
        data += source[begin : begin + chance.choice([100, 3000, 40_000])] * chance.choice([1, 1, 1, 3])
    for _ in range(chance.randrange(12)):
        place = chance.randrange(len(data))
        word = chance.choice([*WORDS, bytes([chance.randrange(256)])])
        data[place : place + chance.choice([0, len(word), 50])] = word
    return bytes(data)


def seeds():
    """New seeds until the time is over."""
    until = time.monotonic() + SECONDS / 2
    seed = SEED
    while time.monotonic() < until:
        yield seed
        seed += 1


def test_no_log_raises_and_columns_are_patterns():
    for seed in seeds():
        plain, quick = both(bitten(random.Random(seed), LOGS))
        assert plain == quick, f"LUMI_MOAI_FUZZ_SEED={seed}"


def test_no_file_raises(work):
    path = work / "x.log"
    for seed in seeds():
        chance = random.Random(seed)
        data = bitten(chance, chance.choice([LOGS, TABLES, [*LOGS, *TABLES]]))
        path.write_bytes(data)
        try:
            report = collect([str(path)], LUMI)
            shown = [as_text(report), as_csv([report]), as_dict(report)["outcome"]]
            sacct.parse(data.decode(errors="replace"), LUMI)
        except Exception as error:
            raise AssertionError(f"LUMI_MOAI_FUZZ_SEED={seed}") from error
        assert all(shown)
