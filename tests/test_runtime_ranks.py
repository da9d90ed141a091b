"""Who am I: every launcher's variables become the same `Ranks`, and contradictions are refused in one sentence."""

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai.errors import BindingError
from lumi_moai.runtime.meeting import await_rank_0
from lumi_moai.runtime.ranks import Ranks, read

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SUBMITIT = {
    "SUBMITIT_LOCAL_JOB_ID": "4711",
    "SUBMITIT_LOCAL_NTASKS": "4",
    "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
    "SUBMITIT_LOCAL_NODEID": "0",
    "SUBMITIT_LOCAL_GLOBALID": "3",
    "SUBMITIT_LOCAL_LOCALID": "3",
}
SLURM = {
    "SLURM_JOB_ID": "123",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "16",
    "SLURM_NTASKS_PER_NODE": "8",
    "SLURM_NNODES": "2",
    "MASTER_ADDR": "nid1",
    "MASTER_PORT": "10123",
}


def numbers(ranks):
    return (ranks.rank, ranks.local_rank, ranks.node_rank, ranks.world_size, ranks.local_world_size)


@pytest.mark.parametrize(
    ("environ", "expected", "key"),
    [
        (TORCHRUN, (5, 1, 1, 8, 4), "none"),
        (SUBMITIT, (3, 3, 0, 4, 4), "4711"),
        (SLURM, (9, 1, 1, 16, 8), "123"),
    ],
)
def test_each_launcher_numbers_its_ranks(environ, expected, key):
    ranks = read(environ)
    assert numbers(ranks) == expected
    assert ranks.key == key
    assert ranks.restart == 0


def test_nobody_launched_us():
    ranks = read({})
    assert numbers(ranks) == (0, 0, 0, 1, 1)
    assert ranks.master_port is None


def test_torchrun_wins_over_slurm_but_slurm_names_the_job():
    ranks = read({**SLURM, **TORCHRUN, "SLURM_RESTART_COUNT": "2"})
    assert numbers(ranks) == (5, 1, 1, 8, 4)
    assert ranks.label == "123-r2"


def test_array_and_requeue_name_the_job():
    ranks = read({**SLURM, "SLURM_ARRAY_JOB_ID": "120", "SLURM_ARRAY_TASK_ID": "4", "SLURM_RESTART_COUNT": "1"})
    assert ranks.label == "120_4-r1"
    assert ranks.environment()["LUMI_MOAI_ARRAY_INDEX"] == "4"


def test_a_second_step_and_a_restarted_worker_do_not_meet_the_first():
    assert read(SLURM).attempt == read({**SLURM, "SLURM_STEP_ID": "0"}).attempt == ""
    assert read({**SLURM, "SLURM_STEP_ID": "1"}).attempt == "-step1"
    assert read({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "1"}).attempt == "-again1"


def test_the_script_gets_torchs_variables():
    assert read(SLURM).environment() == {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "nid1",
        "MASTER_PORT": "10123",
    }


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=4), st.data())
def test_slurms_folded_counts_give_each_node_its_own(folded, data):
    counts = [count for count, times in folded for _ in range(times)]
    text = ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in folded)
    node = data.draw(st.integers(0, len(counts) - 1))
    step = {"SLURM_STEP_TASKS_PER_NODE": text, "SLURM_STEP_NUM_TASKS": str(sum(counts)), "SLURM_STEP_NUM_NODES": "1"}
    ranks = read({**SLURM, **step, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": str(node)})
    assert ranks.local_world_size == counts[node]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({**TORCHRUN, "RANK": "8"}, "rank is 8, it must be from 0 to 7"),
        ({**TORCHRUN, "LOCAL_RANK": "4"}, "local rank is 4"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "9"}, "other ranks on the node is 8"),
        ({**TORCHRUN, "WORLD_SIZE": "eight"}, "WORLD_SIZE is 'eight', not a whole number"),
        ({**TORCHRUN, "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({k: v for k, v in TORCHRUN.items() if k != "RANK"}, "RANK is not set"),
        (
            {**TORCHRUN, "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "1"},
            "torchrun was started 8 times on 1 node",
        ),
        ({k: v for k, v in SLURM.items() if k != "SLURM_NTASKS"}, "SLURM_NTASKS is not set"),
        ({**SLURM, "SLURM_LOCALID": "-1"}, "SLURM_LOCALID is '-1'"),
        ({**SUBMITIT, "SUBMITIT_LOCAL_GLOBALID": "4", "SUBMITIT_LOCAL_LOCALID": "0"}, "rank is 4"),
    ],
)
def test_contradictions_are_one_sentence(environ, words):
    with pytest.raises(BindingError, match=r"^[^\n]+$") as caught:
        read(environ)
    assert words in str(caught.value)


def test_a_world_without_ranks_cannot_be():
    with pytest.raises(BindingError):
        Ranks(key="x", world_size=0, local_world_size=0)


def test_ranks_that_come_early_ask_until_rank_0_listens():
    # torch asks again after up to half of the time that it has waited: ranks joined seconds behind a late rank 0
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
        await_rank_0({**address, "RANK": "0"})
        listens = threading.Timer(0.3, server.listen)
        began = time.monotonic()
        listens.start()
        await_rank_0({**address, "RANK": "1"})
        assert time.monotonic() - began >= 0.3


def test_an_address_that_cannot_be_is_left_for_torch_to_tell():
    await_rank_0({"MASTER_ADDR": "no.such.host.invalid", "MASTER_PORT": "1", "RANK": "1"})
