"""Prices: every worked example of LUMI's billing documentation, and what must hold for any usage."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai import billing, catalog, flavor
from lumi_moai.errors import RequestError
from lumi_moai.usage import Usage


@pytest.fixture(scope="module")
def lumi():
    return catalog.site("lumi")


def usage(partition, hours, nodes=1, devices=0, cores=1, memory_gib=1.0):  # noqa: PLR0917
    return Usage(partition=partition, nodes=nodes, devices=devices, cores=cores, memory_gib=memory_gib, hours=hours)


EXAMPLES = {
    "standard-g, 4 nodes, 24 h": (usage("standard-g", 24, 4, 32, 224, 1920), 384, "GPU-hours", "nodes"),
    "small-g, 2 devices, 24 h": (usage("small-g", 24, 1, 2, 1, 64), 24, "GPU-hours", "devices"),
    "small-g, 1 device and 128 GB, 24 h": (usage("small-g", 24, 1, 1, 1, 128), 24, "GPU-hours", "memory"),
    "standard, 16 nodes, 12 h": (usage("standard", 12, 16, 0, 2048, 3584), 24576, "core-hours", "nodes"),
    "small, 4 cores and 4 GB, 24 h": (usage("small", 24, 1, 0, 4, 4), 96, "core-hours", "cores"),
    "small, 4 cores and 32 GB, 24 h": (usage("small", 24, 1, 0, 4, 32), 384, "core-hours", "memory"),
    "small-g, 1 device, 7 cores, 60 G, 1 h": (usage("small-g", 1, 1, 1, 7, 60), 0.5, "GPU-hours", "devices"),
    "small-g, 1 device, 14 cores, 60 G, 1 h": (usage("small-g", 1, 1, 1, 14, 60), 1.0, "GPU-hours", "cores"),
    "small-g, 1 device, 16 cores, 256 G, 1 h": (usage("small-g", 1, 1, 1, 16, 256), 2.0, "GPU-hours", "memory"),
    "dev-g, 8 devices, 56 cores, 480 G, 1 h": (usage("dev-g", 1, 1, 8, 56, 480), 4.0, "GPU-hours", "devices"),
    # A trainer's published answer counted 3 slices; the formula gives 2.
    "small-g, 1 device, 16 cores, 100 G, 1 h": (usage("small-g", 1, 1, 1, 16, 100), 1.0, "GPU-hours", "cores"),
    "small-g, 1 device, 64 G is one slice": (usage("small-g", 1, 1, 1, 8, 64), 0.5, "GPU-hours", "devices"),
    "bench, like standard": (usage("bench", 2, 3, 0, 384, 672), 768, "core-hours", "nodes"),
    "debug, like small": (usage("debug", 0.5, 1, 0, 16, 28), 8, "core-hours", "cores"),
    "interactive, like small": (usage("interactive", 1, 1, 0, 2, 16), 8, "core-hours", "memory"),
    "largemem, like small": (usage("largemem", 1, 1, 0, 32, 2000), 1000, "core-hours", "memory"),
    "lumid, by the device": (usage("lumid", 4, 1, 1, 8, 64), 4, "GPU-hours", "devices"),
    "a job that never started": (usage("small-g", 0, 0, 0, 0, 0), 0, "GPU-hours", "devices"),
}


@pytest.mark.parametrize(("what", "units", "unit", "decided_by"), EXAMPLES.values(), ids=EXAMPLES)
def test_worked_example(lumi, what, units, unit, decided_by):
    bill = billing.bill(lumi, what)
    assert (bill.billing_units, bill.unit, bill.decided_by) == (pytest.approx(units), unit, decided_by)


def test_every_partition_has_an_example(lumi):
    assert {what.partition for what, *_ in EXAMPLES.values()} == set(lumi.partitions)


@pytest.mark.parametrize(("place", "units"), [("LUMI-P", 115.2), ("LUMI-F", 345.6), ("LUMI-O", 28.8)])
def test_1_2_terabytes_for_4_days(lumi, place, units):
    bill = billing.bill_storage(lumi, place, terabytes=1.2, hours=96)
    assert (bill.billing_units, bill.unit) == (pytest.approx(units), "TB-hours")


def test_storage_that_is_not_billed(lumi):
    with pytest.raises(RequestError, match="LUMI-Q.*did you mean 'LUMI-P'.*LUMI-F"):
        billing.bill_storage(lumi, "LUMI-Q", terabytes=1, hours=1)


def test_poro_34b_1t_tokens_on_128_nodes(lumi):
    hours = 1e12 / 174_378 / 3600
    bill = billing.bill(lumi, usage("standard-g", hours, 128, 1024, 7168, 61440))
    assert hours / 24 == pytest.approx(66, abs=0.5)
    assert bill.billing_units == pytest.approx(0.82e6, rel=0.01)


def test_one_node_hour_is_four_and_one_device_hour_a_half(lumi):
    assert billing.bill(lumi, usage("standard-g", 1)).billing_units == 4
    assert billing.bill(lumi, usage("small-g", 1, devices=1, cores=7, memory_gib=60)).billing_units == 0.5


def test_rounding_on_each_node_is_the_upper_bound(lumi):
    bill = billing.bill(lumi, usage("small-g", 1, 2, 2, 18, 100))  # 9 cores a node: 3 slices in all, 2 on each node
    assert (bill.billing_units, bill.upper_bound) == (1.5, 2.0)
    assert billing.bill(lumi, usage("small-g", 1, 2, 2, 14, 100)).upper_bound is None


def test_devices_have_no_rounding(lumi):
    assert billing.bill(lumi, usage("small-g", 1, 3, 8, 8, 100)).upper_bound is None


def test_unknown_partition(lumi):
    with pytest.raises(RequestError, match="no partition 'smal-g'; did you mean 'small-g'"):
        billing.bill(lumi, usage("smal-g", 1))


amounts = st.builds(
    Usage,
    partition=st.sampled_from(sorted(catalog.site("lumi").partitions)),
    nodes=st.integers(1, 4),
    devices=st.integers(0, 32),
    cores=st.integers(1, 512),
    memory_gib=st.floats(0, 4000, allow_subnormal=False),
    hours=st.floats(0, 72, allow_subnormal=False),
)


@given(amounts, st.sampled_from(["nodes", "devices", "cores", "memory_gib", "hours"]), st.integers(1, 9))
def test_more_never_costs_less(what, name, more):
    site = catalog.site("lumi")
    dearer = replace(what, **{name: getattr(what, name) + more})
    assert billing.bill(site, dearer).billing_units >= billing.bill(site, what).billing_units


@given(amounts)
def test_the_upper_bound_is_above(what):
    bill = billing.bill(catalog.site("lumi"), what)
    assert bill.upper_bound is None or bill.upper_bound >= bill.billing_units


@given(amounts)
def test_the_cheaper_way_costs_less_for_the_same_work(what):
    site = catalog.site("lumi")
    found = billing.cheapest(site, what)
    if found is not None:
        offer, bill = found
        assert bill == billing.bill(site, offer)
        assert bill.billing_units < billing.bill(site, what).billing_units
        assert (offer.devices, offer.hours) == (what.devices, what.hours)
        assert bill.unit == billing.bill(site, what).unit
        assert what.devices or offer.cores == what.cores


CHEAPER = {
    "memory that costs more than the device": (usage("small-g", 24, 1, 1, 7, 128), ("small-g", 1, 7, 60.0, 12.0)),
    "cores that cost more than the device": (usage("small-g", 1, 1, 1, 14, 60), ("small-g", 1, 7, 60.0, 0.5)),
    "a whole node for two devices": (usage("standard-g", 1, 1, 2, 56, 480), ("small-g", 1, 14, 120.0, 1.0)),
    "whole nodes half used": (usage("standard-g", 1, 8, 32, 448, 3840), ("standard-g", 4, 224, 1920.0, 16.0)),
    "memory that costs more than the cores": (usage("small", 24, 1, 0, 4, 32), ("small", 1, 4, 8.0, 96.0)),
    "a whole node for four cores": (usage("standard", 1, 1, 0, 4, 992), ("small", 1, 4, 8.0, 4.0)),
}


@pytest.mark.parametrize(("what", "expected"), CHEAPER.values(), ids=CHEAPER)
def test_cheapest(lumi, what, expected):
    offer, bill = billing.cheapest(lumi, what)
    assert (offer.partition, offer.nodes, offer.cores, offer.memory_gib, bill.billing_units) == expected


@pytest.mark.parametrize("what", [usage("small-g", 1, 1, 2, 14, 120), usage("standard-g", 1, 2, 16, 112, 960)])
def test_nothing_is_cheaper_than_the_fair_share(lumi, what):
    assert billing.cheapest(lumi, what) is None


@pytest.mark.parametrize("wanted", catalog.flavors(), ids=lambda wanted: wanted.name)
def test_a_flavor_is_never_dearer_than_its_devices(lumi, wanted):
    placement = flavor.place(lumi, wanted, minutes=60)
    bill = billing.bill(lumi, billing.usage_of(lumi, placement, minutes=60))
    assert bill.billing_units == placement.devices / 2
    assert billing.cheapest(lumi, billing.usage_of(lumi, placement, minutes=60)) is None
