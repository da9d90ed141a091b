"""Heterogeneous jobs: every component is judged by its own directives."""

import pytest
from test_check_rules import LUMI, all_fixed

from lumi_moai.check import check, read

HEAD = "#!/bin/bash\n#SBATCH -A project_465000001 -t 1:00:00 --no-requeue\n"
CPU = "#SBATCH -p small -N 1 -n 1 -c 4 --mem=8G\n"
ONE = "#SBATCH -p small-g -N 1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=7 --mem=60G\n"
NEXT = "#SBATCH hetjob\n"
STEP = "srun --het-group=0 server : --het-group=1 client\n"


def found(text):
    return [
        (f.rule.id, f.hit.place.line, f.hit.message) for f in check(read(text, "job.sh"), LUMI) if f.rule.id != "LM110"
    ]


@pytest.mark.parametrize("text", [CPU + NEXT + ONE, ONE + NEXT + CPU, CPU + NEXT + ONE + NEXT + CPU])
def test_what_is_right_in_every_component_is_left_alone(text):
    assert found(HEAD + text + STEP) == []


WRONG = {
    "cores": (ONE.replace("task=7", "task=32"), "LM301", "32 cores cost more than the 1 device"),
    "memory": (ONE.replace("60G", "128G"), "LM302", "128G of memory cost more than the 1 device"),
    "partition": (ONE.replace("small-g", "smal-g"), "LM201", "site lumi has no partition 'smal-g'"),
    "no partition": (ONE.replace("-p small-g ", ""), "LM201", "no partition is named"),
    "devices": (ONE.replace("per-node=1 --c", "per-node=9 --c"), "LM208", "9 devices on a node of 8"),
    "option": (ONE.replace("--mem", "--memm"), "LM103", "sbatch has no option --memm"),
    "variable": (ONE.replace("60G", "$MEM"), "LM105", "$MEM stays as it is"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("before", [CPU, CPU + NEXT + CPU])
def test_a_mistake_is_found_in_the_component_that_has_it(name, before):
    line, rule, message = WRONG[name]
    hits = found(HEAD + before + NEXT + line + STEP)
    at = 3 + before.count("\n") + 1
    number = 1 + before.count(NEXT)
    assert (rule, at) in [hit[:2] for hit in hits]
    assert f"component {number} of the job: {message}" in next(hit[2] for hit in hits if hit[0] == rule)


def test_the_first_component_has_no_number():
    hits = found(HEAD + WRONG["memory"][0] + NEXT + CPU + STEP)
    assert [hit[:2] for hit in hits] == [("LM302", 3)]
    assert hits[0][2].startswith("128G of memory")


def test_account_and_time_hold_for_later_components_and_the_partition_does_not():
    dev = ONE.replace("small-g", "dev-g")
    hits = found(HEAD.replace("1:00:00", "9:00:00") + CPU + NEXT + dev + STEP)
    assert [hit[:2] for hit in hits] == [("LM210", 2)]
    assert "component 1 of the job: 09:00:00 is over the limit" in hits[0][2]
    assert found(HEAD.replace("-A project_465000001", "-A nobody") + CPU + NEXT + CPU + STEP) == [
        hit for hit in found(HEAD.replace("-A project_465000001", "-A nobody") + CPU + "true\n")
    ]


def test_a_fix_goes_into_the_component():
    text = HEAD + CPU + NEXT + ONE.replace("--gpus-per-node=1", "--gpus-per-task=1") + STEP
    assert any(hit[0] == "LM401" for hit in found(text)) is any(f.hit.edits for f in check(read(text, "x"), LUMI))
    after = all_fixed(HEAD + CPU + NEXT + ONE.replace("--mem=", "--memm=") + STEP)
    assert after == HEAD + CPU + NEXT + ONE + STEP


def test_a_step_counts_for_the_component_that_it_names():
    masks = "srun --het-group=1 --cpu-bind=mask_cpu:0x1,0x2 python train.py\n"
    whole = "#SBATCH -p standard-g -N 1 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=7\n"
    hits = found(HEAD + CPU + NEXT + whole + masks)
    assert any(rule == "LM501" and message.startswith("component 1 of the job: ") for rule, _, message in hits)
