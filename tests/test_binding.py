"""Masks, the sharing out of cores, and the certificate's judgement."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import catalog
from lumi_moai.binding import Launch, Row, Topology, cpu_masks, judge, share_cores, topology

NODE = catalog.site("lumi").nodes["lumi-g"]
TOP = topology(NODE)

# lumi-userguide docs/runjobs/scheduled-jobs/distribution-binding.md
PUBLISHED = "fe000000000000,fe00000000000000,fe0000,fe000000,fe,fe00,fe00000000,fe0000000000"


def test_masks_are_the_published_ones():
    assert [mask.removeprefix("0x") for mask in cpu_masks(TOP.near_cores)] == PUBLISHED.split(",")


def test_masks_touch_no_reserved_core():
    """Counting hex digits from the right, every odd one must be even: bit 0 of each L3 group is withheld."""
    for mask in cpu_masks(TOP.near_cores):
        digits = mask.removeprefix("0x")[::-1]
        assert all(int(digit, 16) % 2 == 0 for digit in digits[0::2])


def rows(cores_by_device=TOP.near_cores, world=8):
    return [
        Row(
            rank=r,
            local_rank=r,
            node_rank=0,
            world_size=world,
            local_world_size=world,
            host="n",
            cores=tuple(cores),
            device=r,
        )
        for r, cores in enumerate(cores_by_device)
    ]


def test_the_right_table_is_right():
    verdict = judge(TOP, rows(), world_size=8, whole_node=True)
    assert verdict.right
    assert not verdict.remarks


def test_linear_binding_is_the_classic_mistake():
    linear = [tuple(range(8 * d + 1, 8 * d + 8)) for d in range(8)]
    verdict = judge(TOP, rows(linear), world_size=8, whole_node=True)
    assert len(verdict.faults) == 6  # devices 2 and 3 sit where a linear order puts them
    assert "rank 0 on n may run on 1-7, but its device 0 sits next to 49-55" in verdict.faults


def test_on_part_of_a_node_it_is_a_remark():
    linear = [tuple(range(8 * d + 1, 8 * d + 8)) for d in range(8)]
    verdict = judge(TOP, rows(linear), world_size=8, whole_node=False)
    assert verdict.right
    assert len(verdict.remarks) == 6


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (rows()[:7], "rank 7 of 8 never reported"),
        ([*rows(), rows()[0]], "rank 0 reported 2 times"),
        (rows(world=4), "thinks the world has 4 ranks"),
        ([*rows()[:7], Row(**{**rows()[7].__dict__, "device": 6})], "ranks 6 and 7 on n both use device 6"),
        ([*rows()[:7], Row(**{**rows()[7].__dict__, "device": 9})], "uses device 9, the node has 8"),
    ],
)
def test_faults(table, words):
    assert any(words in fault for fault in judge(TOP, table, world_size=8, whole_node=True).faults)


@given(st.sets(st.sampled_from(TOP.usable_cores), min_size=1), st.lists(st.integers(0, 7), unique=True, min_size=1))
def test_cores_are_dealt_evenly_and_once(given_cores, devices):
    dealt = share_cores(TOP, sorted(given_cores), devices)
    assert len(dealt) == len(devices)
    assert set().union(*dealt) <= given_cores
    if len(given_cores) >= len(devices):
        quota = len(given_cores) // len(devices)
        assert all(len(cores) == quota for cores in dealt)
        assert sum(map(len, dealt)) == len(set().union(*dealt))
    else:
        assert all(set(cores) == given_cores for cores in dealt)


@given(st.sets(st.integers(0, 7), min_size=1))
def test_whole_groups_go_to_their_devices(devices):
    order = sorted(devices)
    given_cores = [core for device in order for core in TOP.near_cores[device]]
    assert share_cores(TOP, given_cores, order) == tuple(TOP.near_cores[device] for device in order)


def test_json_round_trip():
    launch = Launch(
        world_size=8, nodes=1, devices_per_node=8, launcher="srun", binding="strict", whole_node=True, bind=True,
        signal="USR2", topology=TOP,
    )  # fmt: skip
    assert Launch.from_json(launch.as_json()) == launch
    assert Topology.from_json(TOP.as_json()) == TOP
    assert Row.from_json(rows()[3].as_json()) == rows()[3]


def test_the_table_of_the_site_file_is_the_documented_one():
    """lumi-userguide lumig.md: device d next to L3 group [6, 7, 2, 3, 0, 1, 4, 5][d], NUMA (3,3,1,1,0,0,2,2)."""
    assert [slot.cores[0] // 8 for slot in NODE.slots] == [6, 7, 2, 3, 0, 1, 4, 5]
    assert TOP.numa == (3, 3, 1, 1, 0, 0, 2, 2)
    assert re.fullmatch(r"[c-d][169ce]|d[16]|de", NODE.slots[0].bus or "")
