"""Scripts composed at random of what people write print on several ranks what one device does, or are refused by name.

The seeds are fixed, so that a run says the same each time; `tests/composed_scripts.py` tries as many others as one likes.
"""

import pytest
from composed_scripts import compared, composed, composed_task

ALIKE = range(1, 14)
"""Seeds of scripts that give one device's numbers, or make so much of the last digit that only float64 tells."""
TASKS = range(70300, 70303)
"""The same of whole tasks."""


@pytest.mark.parametrize("seed", ALIKE)
def test_a_composed_script_gives_the_numbers_of_one_device(work, seed):
    found = compared(composed(seed).text, work / "work")
    assert found.verdict in ("SAME", "ROUNDED"), (found, composed(seed).names)


@pytest.mark.parametrize("seed", TASKS)
def test_so_does_a_whole_task(work, seed):
    found = compared(composed_task(seed).text, work / "work")
    assert found.verdict in ("SAME", "ROUNDED"), (found, composed_task(seed).names)


def with_part(*names):
    """The first seed whose script has the parts *names*."""
    return next(seed for seed in range(10_000) if set(names) <= set(composed(seed).names))


@pytest.mark.parametrize(("layout", "part"), [("fsdp", "body=flat"), ("tp=2", "body=named")])
def test_so_it_does_in_layouts(work, layout, part):
    script = composed(with_part(part))
    found = compared(script.text, work / "work", layout=layout)
    assert found.verdict in ("SAME", "ROUNDED"), (found, script.names)


@pytest.mark.parametrize(("layout", "seed"), [("tp=2", 81001), ("pp=2", 81206)])
def test_so_do_repeated_blocks(work, layout, seed):
    script = composed(seed, has_blocks=True)
    found = compared(script.text, work / "work", layout=layout)
    assert found.verdict in ("SAME", "ROUNDED"), (found, script.names)


def test_what_compares_rows_is_refused_by_name(work):
    seed = with_part("loss=contrast", "body=mlp")
    found = compared(composed(seed).text, work / "work")
    assert (found.verdict, "compares the rows of a batch with each other" in found.why) == ("REFUSED", True), found


def test_a_seed_is_one_script():
    assert composed(5) == composed(5) != composed(6)
    assert composed_task(5) == composed_task(5) != composed_task(6)
    for seed in range(200):
        compile(composed(seed, has_blocks=seed > 99).text, "composed", "exec")
        compile(composed_task(seed).text, "composed", "exec")
