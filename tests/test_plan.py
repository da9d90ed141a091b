"""Layouts, plans and the rule that chooses between them."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai.errors import RequestError
from lumi_moai.plan import DATA, Layout, Plan, Wishes
from lumi_moai.planner import Scale, choose

LAYOUTS = st.builds(
    Layout,
    data=st.sampled_from([None, *DATA]),
    tp=st.sampled_from([None, 1, 2, 4]),
    pp=st.sampled_from([None, 1, 2, 4]),
    micro_batches=st.none() | st.integers(1, 64),
    recompute=st.sampled_from([None, "none", "full", "selective", "every-3"]),
    precision=st.sampled_from([None, "script", "bf16"]),
    reshard=st.sampled_from([None, True, False]),
    compile=st.sampled_from([None, True, False]),
)


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("", Layout()),
        ("auto", Layout()),
        ("ddp", Layout(data="replicate")),
        ("fsdp,tp=2", Layout(data="shard", reshard=True, tp=2)),
        ("zero2", Layout(data="shard", reshard=False)),
        ("hsdp, recompute=every-2 ,bf16", Layout(data="hybrid", reshard=True, recompute="every-2", precision="bf16")),
        ("pp=4,micro_batches=8,compile", Layout(pp=4, micro_batches=8, compile=True)),
        ("tp=auto,offload=off", Layout(offload=False)),
    ],
)
def test_words_of_a_layout(text, layout):
    assert Layout.parse(text) == layout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fdsp", "did you mean 'fsdp'"),
        ("tp=two", "tp=two is no whole number"),
        ("tp=0", "tp is 0"),
        ("recompute=every-0", "every-K"),
        ("recompute=ful", "recompute is 'ful'"),
        ("reshard=maybe", "neither on nor off"),
        ("data=shards", "did you mean 'shard'"),
        ("replicate,offload", "offload keeps parts"),
        ("precision=fp8", "precision is 'fp8'"),
    ],
)
def test_words_that_are_none(text, words):
    with pytest.raises(RequestError, match=r"^[^\n]+$") as caught:
        Layout.parse(text)
    assert words in str(caught.value)


@given(st.text(alphabet="fsdp=,tzero23auto-1", max_size=30))
def test_any_text_is_a_layout_or_an_error(text):
    with suppress(RequestError):
        Layout.parse(text)


@given(LAYOUTS, st.sampled_from([1, 2, 4, 8, 16, 64]), st.sampled_from([1, 2, 4, 8]), st.integers(0, 10**12))
def test_a_plan_uses_every_rank(layout, ranks, in_node, trained):
    scale = Scale(world_size=ranks, local_world_size=min(ranks, in_node), trained=trained, device_bytes=64 * 2**30)
    try:
        plan = choose(layout, scale)
    except RequestError:
        spreads = (layout.tp or 1) > 1 or layout.data not in (None, "replicate")
        divides = not ranks % ((layout.tp or 1) * (layout.pp or 1)) and not scale.local_world_size % (layout.tp or 1)
        assert not divides or ((layout.pp or 1) > 1 and spreads)
        return
    assert plan.world_size == ranks
    assert layout.tp in (None, plan.tp)
    assert layout.pp in (None, plan.pp)
    assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
    assert all(sentence.strip() for sentence in plan.sentences())


def test_the_rule_spreads_what_does_not_fit():
    small, large, vast = (Scale(world_size=8, local_world_size=8, trained=n, device_bytes=64 * 10**9)
                          for n in (10**9, 7 * 10**9, 70 * 10**9))  # fmt: skip
    assert (choose(Layout(), small).dp_replicate, choose(Layout(), small).dp_shard) == (8, 1)
    assert (choose(Layout(), large).dp_shard, choose(Layout(), large).recompute) == (8, "none")
    assert (choose(Layout(), vast).dp_shard, choose(Layout(), vast).recompute) == (8, "full")
    assert choose(Layout(data="hybrid"), Scale(world_size=16, local_world_size=8)).dp_replicate == 2


def test_stages_go_with_copies_only():
    scale = Scale(world_size=8, local_world_size=8, trained=70 * 10**9, device_bytes=64 * 10**9)
    plan = choose(Layout.parse("pp=4,dp=2"), scale)
    assert (plan.pp, plan.dp_replicate, plan.dp_shard, plan.micro_batches) == (4, 2, 1, 4)
    for words, named in {"pp=2,fsdp": "data=shard", "pp=2,tp=2": "tp=2", "pp=2,offload": "offload"}.items():
        with pytest.raises(RequestError, match=f"pp=2 does not go together with {named} yet"):
            choose(Layout.parse(words), scale)
    with pytest.raises(RequestError, match="dp=3 times tp=1 times pp=2 is not the 8 ranks of the job"):
        choose(Layout.parse("pp=2,dp=3"), scale)


def test_hybrid_and_offload_need_ranks_to_spread_over():
    plan = choose(Layout.parse("hsdp"), Scale(world_size=16, local_world_size=8))
    assert (plan.dp_replicate, plan.dp_shard) == (2, 8)
    plan = choose(Layout.parse("hsdp"), Scale(world_size=12, local_world_size=8))
    assert plan.dp_shard == 12
    assert "12 ranks are no whole nodes" in " ".join(plan.reasons)
    with pytest.raises(RequestError, match="here is one rank to spread them over"):
        choose(Layout.parse("offload"), Scale(world_size=1, local_world_size=1))


def test_the_line_of_moai():
    plan = Plan(pp=8, dp_shard=8, micro_batches=64, recompute="full", reshard=False)
    assert plan.moai_line(1) == (
        "num_stages : 8, num_micro_batches : 64, batch_per_device : 1, No TP, recomputation : full(2),"
        " distribute_param : true, distribute_low_prec_param : false"
    )
    assert (
        Plan(dp_shard=16).moai_line(4).startswith("No PP, No TP, recomputation : default(1), distribute_param : true")
    )


def test_wishes_travel_in_json():
    wishes = Wishes.parse(parallel="auto", layout="fsdp,tp=2", self_check="off", checkpoint="30", keep="3")
    assert Wishes.from_json(json.loads(json.dumps(wishes.as_json()))) == wishes
    assert wishes.checkpoint == 30.0
    assert Wishes.from_json({}) == Wishes()
    for words in (
        {"checkpoint": "soon"},
        {"keep": "0"},
        {"checkpoint": "-1"},
        {"parallel": "on"},
        {"checkpoint": "nan"},
    ):
        with pytest.raises(RequestError):
            Wishes.parse(
                **{"parallel": "line", "layout": "", "self_check": "on", "checkpoint": "auto", "keep": "2", **words}
            )
