"""On one LUMI-G node's real topology: the product's own scripts, its certificate, and where each rank really runs."""

import json
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEAR = [range(first, first + 7) for first in (49, 57, 17, 25, 1, 9, 33, 41)]
NODE_VISIBLE = [ROOT, sys.prefix]
NODE_SECONDS = 2400  # some 600 by itself, and on a slow machine more than twice as long beside the other tests

# Every rank says what the kernel says of it. The torchrun cases need torch, whose import costs a minute in this guest.
SAY = """import os, json
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
says = {"rank": int(os.environ["RANK"]), "local_rank": int(os.environ["LOCAL_RANK"]), "cores": status["Cpus_allowed_list"].strip(),
        "devices": os.environ.get("SLURM_STEP_GPUS", os.environ.get("SLURM_JOB_GPUS", ""))}
json.dump(says, open(f"{os.environ['SAYS']}.{says['rank']}.json", "w"))
"""
CASES = [
    ("whole-srun", "--flavor xLarge"),
    ("whole-torchrun", "--flavor xLarge --launcher torchrun"),
    ("small", "--flavor Small"),
    ("medium", "--flavor Medium"),
    ("large", "--flavor Large"),
    ("medium-torchrun", "--flavor Medium --launcher torchrun"),
    ("full-of-parts", "--flavor xLarge --partition small-g"),
]
NODE_SCRIPT = (
    f"""
export PYTHONPATH={shlex.quote(str(ROOT))} XDG_STATE_HOME=$PWD/state LUMI_MOAI_CERTIFICATE_SECONDS=200 LUMI_MOAI_SLURM_SECONDS=200
cat > say.py <<'P'
{SAY}P
door() {{ {shlex.quote(sys.executable)} -c 'from lumi_moai.cli import main; main()' "$@"; }}
idle() {{ while squeue -h | grep -q .; do sleep 0.5; done; }}
options="--site lumi --account project_465000001 --container none"
run() {{ local name=$1; shift; door submit $options --runs $PWD/$name --env SAYS=$PWD/$name "$@" say.py; idle; echo "$name ended after $SECONDS s"; }}
"""
    + "\n".join(f"run {name} {words}" for name, words in CASES)
    + """
# A mask in linear order, as people write it by hand: the certificate has to stop the job before the script runs.
door submit $options --runs $PWD/wrong --env SAYS=$PWD/wrong --sbatch hold --flavor xLarge say.py
script=$(ls wrong/*/job.sbatch)
sed -i 's/mask_cpu:[0-9a-fx,]*/mask_cpu:0xfe,0xfe00,0xfe0000,0xfe000000,0xfe00000000,0xfe0000000000,0xfe000000000000,0xfe00000000000000/' $script
scancel -u root; idle
sbatch --hold $script >/dev/null; scontrol release $(squeue -h -o %i); idle
"""
)


def says(node, name, ranks):
    return [json.loads((node.out / f"{name}.{rank}.json").read_text()) for rank in range(ranks)]


def cores(text):
    ends = [part.split("-") for part in text.split(",")]
    return {core for part in ends for core in range(int(part[0]), int(part[-1]) + 1)}


def certificate(node, name):
    (path,) = (node.out / name).glob("*/certificate/*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["whole-srun", "whole-torchrun", "full-of-parts"])
def test_on_a_whole_node_each_rank_sits_next_to_its_device(node, name):
    for rank, said in enumerate(says(node, name, 8)):
        assert cores(said["cores"]) == set(NEAR[rank]), node.console
    assert certificate(node, name)["verdict"] == "right"


@pytest.mark.parametrize(("name", "ranks"), [("small", 1), ("medium", 2), ("large", 4), ("medium-torchrun", 2)])
def test_on_part_of_a_node_the_given_cores_are_shared_out(node, name, ranks):
    table = certificate(node, name)
    assert table["verdict"] == "right", node.console
    mine = [cores(said["cores"]) for said in says(node, name, ranks)]
    assert all(len(some) == 7 for some in mine)
    assert sum(map(len, mine)) == len(set().union(*mine)), "no core has two ranks"
    assert not set().union(*mine) & set(range(0, 64, 8)), "no withheld core"
    assert [row["cores"] for row in table["rows"]] == [sorted(some) for some in mine]


def test_a_wrong_mask_is_stopped_before_the_script(node):
    table = certificate(node, "wrong")
    assert table["verdict"] == "wrong"
    assert len(table["faults"]) == 6  # devices 2 and 3 sit where a linear order puts them
    assert not list(node.out.glob("wrong.*.json"))
