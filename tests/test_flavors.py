"""Flavors: MoAI's menu, every spelling, and what each one is on a site."""

import json

import pytest
from click.testing import CliRunner

from lumi_moai import catalog, state
from lumi_moai.cli import main
from lumi_moai.errors import RequestError
from lumi_moai.flavor import find, fit, place
from lumi_moai.resources import root

MENU = catalog.flavors()
SITES = sorted(path.stem for path in (root("configs") / "sites").glob("*.yaml"))
DAY = 24 * 60

# number, name, GB, devices, nodes: MoAI's page, 24.5.0
MOAI = [
    (1, "Small", 64, 1, 1), (2, "Medium", 128, 2, 1), (3, "Large", 256, 4, 1), (4, "xLarge", 512, 8, 1),
    (5, "1.5xLarge", 768, 12, 2), (6, "2xLarge", 1024, 16, 2), (7, "3xLarge", 1536, 24, 3), (8, "4xLarge", 2048, 32, 4),
    (9, "6xLarge", 3072, 48, 6), (10, "8xLarge", 4096, 64, 8), (11, "12xLarge", 6144, 96, 12),
    (12, "24xLarge", 12288, 192, 24), (13, "48xLarge", 24576, 384, 48),
]  # fmt: skip


def test_the_menu_is_moais():
    assert [(f.number, f.name, f.memory_gb, f.devices) for f in MENU] == [line[:4] for line in MOAI]


@pytest.mark.parametrize(("number", "name", "gb", "devices", "nodes"), MOAI)
def test_on_lumi_a_flavor_is_what_moai_sold(number, name, gb, devices, nodes):
    placement = place(catalog.site("lumi"), MENU[number - 1], minutes=DAY)
    assert (placement.devices, placement.nodes) == (devices, nodes)
    assert placement.devices * 64 == gb


def test_every_alias_means_one_flavor():
    for flavor in MENU:
        for alias in flavor.aliases:
            for word in (alias, alias.upper(), f" {alias} "):
                assert find(word, MENU) is flavor
    aliases = [alias for flavor in MENU for alias in flavor.aliases]
    assert len(aliases) == len(set(aliases)) == 4 * len(MENU)


@pytest.mark.parametrize(
    "word", ["8xLarge", "8xlarge", "8xLarge.4096GB", "10", "flavor-default-64", "FLAVOR-DEFAULT-64"]
)
def test_the_spellings_of_the_largest_tutorial(word):
    assert find(word, MENU).name == "8xLarge"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("8xLarg", "8xLarge"), ("smal", "Small"), ("xlarge.513GB", "xLarge"), ("flavor-default-7", "lumi-moai flavors"),
     ("0", "lumi-moai flavors"), ("14", "lumi-moai flavors"), ("", "lumi-moai flavors")],
)  # fmt: skip
def test_an_unknown_flavor_gets_a_hint(word, hint):
    with pytest.raises(RequestError, match=hint):
        find(word, MENU)


def test_parts_go_where_parts_are_sold_and_whole_nodes_where_whole_nodes_are():
    partitions = {f.name: place(catalog.site("lumi"), f, minutes=DAY).partition.name for f in MENU}
    parts = {"Small", "Medium", "Large", "1.5xLarge"}
    assert partitions == {f.name: "small-g" if f.name in parts else "standard-g" for f in MENU}


def test_memory_and_cores_follow_the_devices():
    for flavor in MENU:
        placement = place(catalog.site("lumi"), flavor, minutes=DAY)
        assert placement.cores_per_device == 7
        whole = placement.devices_per_node == 8
        assert placement.memory_gib == (480 if whole else 60 * placement.devices_per_node)
        assert placement.whole_node == whole


def test_a_named_partition_is_taken():
    lumi = catalog.site("lumi")
    assert place(lumi, find("Small", MENU), minutes=60, partition="dev-g").partition.name == "dev-g"
    rounded = place(lumi, find("Small", MENU), minutes=60, partition="standard-g")
    assert (rounded.devices, rounded.whole_node) == (8, True)
    assert place(lumi, find("1.5xLarge", MENU), minutes=60, partition="standard-g").devices == 16


@pytest.mark.parametrize(
    ("flavor", "minutes", "partition", "words"),
    [
        ("8xLarge", 60, "small-g", ["8xLarge needs 8 nodes", "small-g gives 4 nodes", "standard-g", "dev-g"]),
        ("xLarge", 3 * DAY, None, ["3-00:00:00 is over the limit 2-00:00:00 of partition standard-g", "small-g"]),
        ("Small", 4 * DAY, None, ["over the limit", "no partition of site lumi takes that"]),
        ("48xLarge", 200, "dev-g", ["needs 48 nodes", "over the limit 03:00:00", "standard-g"]),
        ("Small", 60, "standard", ["partition standard of site lumi has no devices", "small-g"]),
        ("Small", 60, "smal-g", ["did you mean 'small-g'"]),
    ],
)
def test_what_cannot_be_is_refused_with_who_would_take_it(flavor, minutes, partition, words):
    with pytest.raises(RequestError) as caught:
        place(catalog.site("lumi"), find(flavor, MENU), minutes=minutes, partition=partition)
    for word in words:
        assert word in str(caught.value)


def test_local_takes_lumis_counts_and_refuses_more():
    local = catalog.site("local")
    assert [place(local, f, minutes=60).devices for f in MENU[:4]] == [1, 2, 4, 8]
    for flavor in MENU[4:]:
        with pytest.raises(RequestError, match="no partition of site local"):
            place(local, flavor, minutes=60)


def placed_or_refused(site, flavor):
    """The placement, or the sentence of the refusal."""
    try:
        return place(site, flavor, minutes=site.policy.default_minutes), ""
    except RequestError as error:
        return None, str(error)


@pytest.mark.parametrize("name", SITES)
def test_every_flavor_of_every_site_is_placed_or_refused_with_a_sentence(name):
    site = catalog.site(name)
    answers = [(flavor, *placed_or_refused(site, flavor)) for flavor in MENU]
    assert any(placement for _, placement, _ in answers)
    for flavor, placement, sentence in answers:
        if placement is None:
            assert flavor.name in sentence
            assert "\n" not in sentence
            continue
        node = site.node(placement.partition)
        assert placement.devices * site.device(node).memory_gb >= flavor.memory_gb
        assert placement.nodes <= placement.partition.max_nodes
        assert placement.devices_per_node <= node.devices
        assert placement.devices_per_node * placement.cores_per_device <= len(node.usable_cores)
        assert placement.memory_gib <= node.memory_gib


@pytest.mark.parametrize("name", SITES)
def test_a_flavor_fits_evenly_everywhere(name):
    """Devices are the fewest that hold the memory, spread evenly: never a whole device per node too many."""
    site = catalog.site(name)
    for flavor in MENU:
        for partition in site.partitions.values():
            node = site.node(partition)
            if not node.devices:
                continue
            placement = fit(site, flavor, partition)
            least = -(-flavor.memory_gb // site.device(node).memory_gb)
            assert placement.devices >= least
            if partition.allocation == "resource":
                assert placement.devices - least < placement.nodes


def run(*words):
    return CliRunner().invoke(main, ["flavors", *words])


KEYS = {"name", "number", "devices", "nodes", "memory_gb", "partition", "billing_units_per_hour"}


def test_json_has_exactly_the_keys():
    lines = json.loads(run("--site", "lumi", "--json").stdout)
    assert [line["name"] for line in lines] == [line[1] for line in MOAI]
    assert all(set(line) == KEYS for line in lines)
    by_name = {line["name"]: line for line in lines}
    assert by_name["8xLarge"] == {
        "name": "8xLarge", "number": 10, "devices": 64, "nodes": 8, "memory_gb": 4096, "partition": "standard-g",
        "billing_units_per_hour": 32.0,
    }  # fmt: skip
    assert by_name["Small"]["billing_units_per_hour"] == 0.5


def test_json_of_what_the_site_cannot_take():
    lines = json.loads(run("--site", "local", "--json").stdout)
    assert all(set(line) == KEYS for line in lines)
    assert [line["partition"] for line in lines] == ["local"] * 4 + [None] * 9


def test_prices_of_an_hour_on_lumi():
    """A module-hour is two devices: 4 for a node, 0.5 for a device, whatever the partition."""
    for line in json.loads(run("--site", "lumi", "--json").stdout):
        assert line["billing_units_per_hour"] == line["devices"] / 2


def test_the_table_marks_the_chosen_one():
    state.choose("lumi", "8xLarge")
    text = run("--site", "lumi").stdout
    assert [line for line in text.splitlines() if "*" in line] == [
        "10  8xLarge  *       64      8   4096  standard-g        32"
    ]
    assert "PER HOUR in GPU-hours" in text


def test_the_table_gives_the_reason_for_what_is_missing():
    text = run("--site", "local").stdout
    assert "Not here: 1.5xLarge needs 2 nodes" in text
    assert "Nor: 2xLarge" in text


def test_a_torn_state_file_is_one_sentence():
    state.state_file().parent.mkdir(parents=True)
    state.state_file().write_text("{")
    answer = run("--site", "lumi")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("Error: ")
    assert answer.stderr.count("\n") == 1


def test_an_unknown_site_is_one_sentence():
    answer = run("--site", "lumy")
    assert answer.exit_code == 1
    assert "did you mean 'lumi'" in answer.stderr
