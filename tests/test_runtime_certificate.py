"""Real ranks without torch: they bind themselves, certify each other, and stop a wrong job before the script."""

import os
import time

import pytest
import runtime_ranks
from runtime_ranks import MINE, ColdRun, launch, slurm, submitit, topology

from lumi_moai.binding import Row
from lumi_moai.runtime import certificate, cores

SCRIPT = "import os; print('ran', sorted(os.sched_getaffinity(0)))"
two_cores = pytest.mark.skipif(len(MINE) < 2, reason="binding two ranks needs two cores")
A, B = (MINE * 2)[:2]


def on_core(*by_rank):
    return lambda rank: ["taskset", "-c", str(by_rank[rank])]


def whole_node(**words):
    return launch(2, launcher="srun", whole_node=True, bind=True, topology=topology([[A], [B]]), **words)


def part_of_node(**words):
    return launch(2, launcher="srun", bind=True, topology=topology([[A], [B]]), **words)


@two_cores
def test_right_masks_pass(work):
    run = ColdRun(work, whole_node())
    ranks = run.ranks(slurm(2, MASTER_ADDR="x", MASTER_PORT="1"), run.script(SCRIPT), prefix=on_core(A, B))
    assert [rank.code for rank in ranks] == [0, 0]
    assert "lumi-moai: certificate right: 2 ranks on 1 node, each on the cores next to its device" in ranks[0].err
    assert ranks[1].err == ""
    written = run.certificate()
    assert (written["verdict"], written["faults"], written["world_size"]) == ("right", [], 2)
    assert [row["cores"] for row in written["rows"]] == [[A], [B]]
    assert all(Row.from_json(row).pid for row in written["rows"])
    assert sorted(path.name for path in (work / "certificate" / "parts" / "77-r0").glob("rank-*.json")) == [
        "rank-0.json",
        "rank-1.json",
    ]


@two_cores
def test_swapped_masks_stop_the_job_before_the_script(work):
    run = ColdRun(work, whole_node())
    ranks = run.ranks(slurm(2, MASTER_ADDR="x", MASTER_PORT="1"), run.script(SCRIPT), prefix=on_core(B, A))
    assert [rank.code for rank in ranks] == [78, 78]
    assert "ran" not in ranks[0].out + ranks[1].out
    assert f"rank 0 on {os.uname().nodename} may run on {B}, but its device 0 sits next to {A}" in ranks[0].err
    assert "--binding warn" in ranks[0].err
    assert ranks[0].err.count("WRONG") == 2
    assert run.certificate()["verdict"] == "wrong"
    assert ranks[1].err == ""


@two_cores
def test_warn_lets_wrong_masks_pass(work):
    run = ColdRun(work, whole_node(binding="warn"))
    ranks = run.ranks(slurm(2, MASTER_ADDR="x", MASTER_PORT="1"), run.script(SCRIPT), prefix=on_core(B, A))
    assert [rank.code for rank in ranks] == [0, 0]
    assert "WRONG" in ranks[0].err
    assert "going on all the same" in ranks[0].err
    assert run.certificate()["verdict"] == "wrong"


@two_cores
def test_on_part_of_a_node_each_rank_moves_next_to_its_device(work):
    run = ColdRun(work, part_of_node())
    variables = slurm(2, MASTER_ADDR="x", MASTER_PORT="1", SLURM_STEP_GPUS="0-1")
    # Slurm gave the cores the other way round.
    ranks = run.ranks(variables, run.script(SCRIPT), prefix=on_core(B, A))
    assert [rank.out for rank in ranks] == [f"ran [{A}]\n", f"ran [{B}]\n"]
    assert run.certificate()["verdict"] == "right"


@two_cores
def test_the_granted_devices_decide_which_cores_are_near(work):
    run = ColdRun(work, part_of_node(world_size=1))
    ranks = run.ranks(slurm(1, MASTER_ADDR="x", MASTER_PORT="1", SLURM_JOB_GPUS="1"), run.script(SCRIPT))
    assert ranks[0].out == f"ran [{A}, {B}]\n"  # alone on the node, it keeps all that it got
    assert run.certificate()["rows"][0]["device"] == 1


@two_cores
def test_on_part_of_a_node_far_cores_are_a_remark(work):
    run = ColdRun(work, part_of_node())
    variables = slurm(2, MASTER_ADDR="x", MASTER_PORT="1")
    ranks = run.ranks(variables, run.script(SCRIPT), prefix=on_core(A, A))
    assert [rank.code for rank in ranks] == [0, 0]
    written = run.certificate()
    assert written["verdict"] == "right"
    assert len(written["remarks"]) == 1
    assert "Slurm gave cores away from their device" in ranks[0].err


@two_cores
def test_torchruns_workers_bind_themselves_on_a_whole_node(work):
    run = ColdRun(work, launch(2, launcher="torchrun", whole_node=True, bind=True, topology=topology([[A], [B]])))
    variables = [
        {
            "TORCHELASTIC_RUN_ID": "77",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "1",
        }
        for rank in range(2)
    ]
    ranks = run.ranks(variables, run.script(SCRIPT))
    assert [rank.out for rank in ranks] == [f"ran [{A}]\n", f"ran [{B}]\n"]
    assert run.certificate()["verdict"] == "right"


def test_a_site_that_binds_nothing_judges_the_world_only(work):
    run = ColdRun(work, launch(2))
    ranks = run.ranks(submitit(2), run.script("import os; print(os.environ['RANK'], os.environ['MASTER_ADDR'])"))
    assert [rank.out for rank in ranks] == ["0 127.0.0.1\n", "1 127.0.0.1\n"]
    assert run.certificate()["verdict"] == "unbound"


@pytest.mark.parametrize("binding", ["strict", "warn"])
def test_a_missing_rank_stops_the_job_even_with_warn(work, binding):
    run = ColdRun(work, launch(3, binding=binding))
    variables = [{**each, "LUMI_MOAI_CERTIFICATE_SECONDS": "3"} for each in submitit(3)[:2]]
    begun = time.monotonic()
    ranks = run.ranks(variables, run.script(SCRIPT))
    assert [rank.code for rank in ranks] == [78, 78]
    assert "rank 2 of 3 never reported" in ranks[0].err
    assert "ran" not in ranks[0].out + ranks[1].out
    assert time.monotonic() - begun < 60


def test_a_world_of_another_size_stops_the_job_at_once(work):
    run = ColdRun(work, launch(4))
    ranks = run.ranks(submitit(2), run.script(SCRIPT))
    assert [rank.code for rank in ranks] == [78, 78]
    assert "rank 0 thinks the world has 2 ranks, the job was made for 4" in ranks[0].err


@two_cores
def test_two_ranks_on_one_device_stop_the_job_even_with_warn(work):
    run = ColdRun(work, part_of_node(binding="warn"))
    variables = slurm(2, MASTER_ADDR="x", MASTER_PORT="1")
    variables[1]["SLURM_JOB_GPUS"] = "7,0"
    ranks = run.ranks(variables, run.script(SCRIPT))
    assert [rank.code for rank in ranks] == [78, 78]
    assert "both use device 0" in ranks[0].err


def test_each_array_run_and_each_requeue_has_a_certificate_of_its_own(work):
    run = ColdRun(work, launch(1, launcher="srun"))
    variables = slurm(1, SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID="4", SLURM_RESTART_COUNT="2")
    (rank,) = run.ranks(variables, run.script("import os; print(os.environ['LUMI_MOAI_ARRAY_INDEX'])"))
    assert rank.out == "4\n"
    assert run.certificate("77_4-r2")["world_size"] == 1


def test_several_nodes_without_an_address_are_refused(work):
    run = ColdRun(work, launch(2, launcher="srun", nodes=2, devices_per_node=1))
    ranks = run.ranks(slurm(2, per_node=1), run.script(SCRIPT))
    assert [rank.code for rank in ranks] == [1, 1]
    assert "need MASTER_ADDR and MASTER_PORT" in ranks[0].err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "job.json").unlink(), "cannot read"),
        (lambda folder: (folder / "job.json").write_text("{}"), "says nothing about its launch"),
        (lambda folder: (folder / "job.json").write_text("{"), "says nothing about its launch"),
        (lambda folder: (folder / "certificate").write_text(""), "must be writable"),
    ],
)
def test_a_spoilt_run_folder_is_one_sentence(work, spoil, words):
    run = ColdRun(work, launch(1))
    spoil(work)
    (rank,) = run.ranks(submitit(1), "nothing.py")
    assert rank.code == 1
    assert words in rank.err
    assert len(rank.err.splitlines()) == 1


def test_a_large_table_shows_the_wrong_ranks_only():
    description = launch(200, launcher="srun", bind=True, whole_node=True, topology=topology([[A]] * 8))
    rows = [
        Row(
            rank=rank,
            local_rank=rank % 8,
            node_rank=rank // 8,
            world_size=200,
            local_world_size=8,
            host=f"nid{rank // 8:06d}",
            cores=(A,) if rank != 9 else (A + 1,),
            device=rank % 8,
        )
        for rank in range(200)
    ]
    lines = certificate.table(description, rows)
    assert lines[0].split("  ")[0] == "rank"
    assert lines[1].split() == ["9", "nid000001", "1", str(A + 1), str(A), "WRONG"]
    assert lines[2:] == ["(199 more ranks not shown)"]


@pytest.mark.parametrize(
    ("environ", "local_rank", "device"),
    [
        ({}, 3, 3),
        ({"SLURM_JOB_GPUS": "2,5"}, 1, 5),
        ({"SLURM_STEP_GPUS": "0-3", "SLURM_JOB_GPUS": "4-7"}, 2, 2),
        ({"SLURM_JOB_GPUS": "5"}, 1, 1),
        ({"SLURM_JOB_GPUS": "GPU-1234"}, 0, 0),
    ],
)
def test_slurm_says_which_devices_were_granted(environ, local_rank, device):
    assert cores.device_index(environ, local_rank) == device


def test_a_hardware_thread_belongs_to_its_first_sibling(work, monkeypatch):
    monkeypatch.setattr(cores, "_CPU", work)
    (work / "cpu65" / "topology").mkdir(parents=True)
    (work / "cpu65" / "topology" / "thread_siblings_list").write_text("1,65\n")
    top = topology([[1, 2]])
    assert cores.core_of(65, top) == 1
    assert cores.core_of(2, top) == 2
    assert cores.core_of(99, top) == 99


def test_both_threads_of_a_core_are_taken_when_both_were_given(monkeypatch):
    taken = []
    monkeypatch.setattr(cores, "given_threads", lambda: (1, 2, 65, 66))
    monkeypatch.setattr(cores, "core_of", lambda thread, top: thread % 64)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, threads: taken.append(list(threads)))
    description = launch(2, launcher="torchrun", bind=True, whole_node=True, topology=topology([[1], [2]]))
    cores.bind_here(description, None, 1, None, 0.0)
    assert taken == [[2, 66]]


def test_the_bus_address_is_read_in_the_order_of_the_devices(work, monkeypatch):
    monkeypatch.setattr(cores, "_PCI", work)
    for name, kind in {"0000:c9:00.0": "0x038000", "0000:c1:00.0": "0x030200", "0000:01:00.0": "0x030000"}.items():
        (work / name).mkdir()
        (work / name / "class").write_text(f"{kind}\n")
    assert [cores.bus_address(device) for device in range(3)] == ["0000:c1:00.0", "0000:c9:00.0", None]


def test_the_helper_knows_this_machine():
    assert runtime_ranks.MINE
