"""Sites as data: the bundled ones add up, one of the user's works without a code change, and mistakes are all told."""

import json
import os
import shutil

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumi_moai import catalog
from lumi_moai.billing import bill
from lumi_moai.binding import cpu_masks
from lumi_moai.catalog.sites import _site
from lumi_moai.cli import main
from lumi_moai.errors import ConfigError, RequestError
from lumi_moai.flavor import find, place
from lumi_moai.resources import root
from lumi_moai.usage import Usage

SITES = sorted(path.stem for path in (root("configs") / "sites").glob("*.yaml"))
DEVICES = sorted(path.stem for path in (root("configs") / "devices").glob("*.yaml"))
NODES = [(name, node) for name in SITES for node in catalog.site(name).nodes]


# ---- the bundled files -------------------------------------------------------------------------------------------


def test_three_kinds_of_site_are_bundled():
    assert {"lumi", "local", "delta"} <= set(SITES)
    assert {catalog.site(name).scheduler for name in SITES} == {"slurm", "local"}


@pytest.mark.parametrize("name", SITES)
def test_every_fact_has_a_source(name):
    site = catalog.site(name)
    assert site.sources
    assert all(node.source for node in site.nodes.values())
    assert all(rule.source for rule in site.billing.values())
    for variable in (*site.environment, *site.caches, *site.containers.values()):
        assert variable.reason, variable


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_decodes_and_names_its_sources(name):
    device = catalog.sites.device(name)
    assert device.source
    assert device.monitor
    # What a user sees is within a tenth of what the vendor prints; ECC takes a sixteenth on some.
    assert 0.9 < device.memory_mib * 1024**2 / (device.memory_gb * 1e9) < 1.1


@pytest.mark.parametrize(("name", "node"), NODES)
def test_a_nodes_numbers_add_up(name, node):
    found = catalog.site(name).nodes[node]
    usable = set(found.usable_cores)
    assert len(found.cores) == len(set(found.cores))
    assert set(found.reserved_cores) <= set(found.cores)
    if not found.devices:
        return
    near = [core for slot in found.slots for core in slot.cores]
    assert len(near) == len(set(near)), "two devices share a core"
    assert set(near) <= usable
    assert {len(slot.cores) for slot in found.slots} == {found.cores_per_device}
    assert found.devices * found.cores_per_device <= len(usable)
    assert found.devices * found.memory_gib_per_device <= found.memory_gib
    masks = [int(mask, 16) for mask in cpu_masks([slot.cores for slot in found.slots])]
    assert sum(mask.bit_count() for mask in masks) == len(near)
    for place_, mask in enumerate(masks):
        assert all(mask & other == 0 for other in masks[place_ + 1 :])


@pytest.mark.parametrize("name", SITES)
def test_an_hour_of_every_partition_has_a_price(name):
    site = catalog.site(name)
    for partition in site.partitions.values():
        node, rule = site.node(partition), site.rule(partition)
        if not node.devices and rule.slice and rule.slice.cores is None:
            continue  # sold by devices that the file does not describe
        usage = Usage(
            partition=partition.name, nodes=1, devices=node.devices, cores=len(node.usable_cores),
            memory_gib=node.memory_gib, hours=1.0,
        )  # fmt: skip
        assert bill(site, usage).billing_units > 0
        assert partition.max_nodes >= 1
        assert site.policy.default_minutes <= partition.max_minutes or not partition.choose


def test_the_third_site_differs_from_lumi_in_what_matters():
    """Devices run against the cores, four of them and eight of them, in parts of nodes only, another unit."""
    delta = catalog.site("delta")
    assert [slot.cores[0] for slot in delta.nodes["quad-a100"].slots] == [48, 32, 16, 0]
    assert cpu_masks([slot.cores for slot in delta.nodes["quad-a100"].slots]) == (
        "0xffff000000000000", "0xffff00000000", "0xffff0000", "0xffff",
    )  # fmt: skip
    assert [slot.numa for slot in delta.nodes["octa-a100"].slots] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert {partition.allocation for partition in delta.partitions.values()} == {"resource"}


def delta_price(partition, devices, cores, memory_gib, nodes=1):
    usage = Usage(
        partition=partition, nodes=nodes, devices=devices, cores=cores, memory_gib=memory_gib, hours=1.0
    )  # fmt: skip
    return bill(catalog.site("delta"), usage).billing_units


def test_prices_of_the_third_site():
    """NCSA's own examples: an hour of a whole node is 4 and 8 units, of a CPU node 128; factors from its table."""
    assert delta_price("gpuA100x4", 4, 64, 208) == 4
    assert delta_price("gpuA100x8", 8, 128, 1856) == 8 * 1.5
    assert delta_price("cpu", 0, 128, 208) == 128
    assert delta_price("gpuA100x4", 1, 16, 58) == 1  # 62.5 GB are 58.2 GiB
    assert delta_price("gpuA100x4", 1, 16, 59) == 2
    assert delta_price("gpuA100x4", 1, 17, 10) == 2
    assert delta_price("gpuA40x4", 4, 64, 208) == 2
    assert delta_price("gpuA100x4-interactive", 1, 16, 52) == 2
    assert delta_price("gpuH200x8", 1, 6, 200) == 3


def test_flavors_of_the_third_site_hold_the_same_memory():
    delta, menu = catalog.site("delta"), catalog.flavors()
    shapes = {name: place(delta, find(name, menu), minutes=60) for name in ("Small", "Large", "xLarge")}
    assert {name: (shape.nodes, shape.devices_per_node) for name, shape in shapes.items()} == {
        "Small": (1, 2), "Large": (2, 4), "xLarge": (4, 4),
    }  # fmt: skip
    with pytest.raises(RequestError, match=r"48xLarge needs 154 nodes .* gives 100 nodes"):
        place(delta, find("48xLarge", menu), minutes=60)
    assert place(delta, find("xLarge", menu), minutes=60, partition="gpuH200x8").devices == 4


# ---- a site of the user's own ------------------------------------------------------------------------------------

OWN = """\
title: My cluster
scheduler: slurm
sources: [the sticker on the rack]
device_name: MoAI Accelerator
recognise: {}
policy: {default_time: 12:00:00}
nodes:
  box:
    source: lscpu
    cores: 0-15
    memory_gib: 120
    device: own-device
    cores_per_device: 8
    memory_gib_per_device: 60
    slots: [{cores: 8-15}, {cores: 0-7}]
partitions:
  big: {node: box, allocation: node, max_time: 1-00:00:00, max_nodes: 4, billing: hours}
billing:
  hours: {unit: node-hours, per_node: 1.0}
"""
OWN_DEVICE = """\
label: A device
source: its box
memory_gb: 32
memory_mib: 32768
monitor: [nvml]
"""


def put(folder, text=OWN, name="mine"):
    """A site file, and its device, in *folder*; the path of the site file."""
    for kind in ("sites", "devices"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    (folder / "devices" / "own-device.yaml").write_text(OWN_DEVICE)
    path = folder / "sites" / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def read_anew():
    """Files are read once per process; tests write the same names again."""
    _site.cache_clear()
    catalog.sites.device.cache_clear()
    yield
    _site.cache_clear()
    catalog.sites.device.cache_clear()


@pytest.mark.parametrize("where", ["user folder", "LUMI_MOAI_PATH", "path"])
def test_a_site_of_the_users_works_without_a_code_change(tmp_path, monkeypatch, where):
    if where == "user folder":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        put(tmp_path / "lumi-moai")
    else:
        monkeypatch.setenv("LUMI_MOAI_PATH", f"/nowhere:{tmp_path}")
        put(tmp_path)
    name = str(tmp_path / "sites" / "mine.yaml") if where == "path" else "mine"
    answer = CliRunner().invoke(main, ["flavors", "--site", name, "--json"])
    lines = {line["name"]: line for line in json.loads(answer.stdout)}
    assert lines["Small"] == {
        "name": "Small", "number": 1, "devices": 2, "nodes": 1, "memory_gb": 64, "partition": "big",
        "billing_units_per_hour": 1.0,
    }  # fmt: skip
    assert lines["xLarge"]["partition"] is None  # 16 devices are 8 nodes, and there are 4


def test_the_users_own_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    put(tmp_path / "lumi-moai", name="lumi")
    assert catalog.site("lumi").title == "My cluster"
    assert catalog.site_names()[0] == "lumi"


def test_lumi_moai_path_comes_before_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LUMI_MOAI_PATH", str(tmp_path / "shared"))
    put(tmp_path / "config" / "lumi-moai")
    put(tmp_path / "shared", OWN.replace("My cluster", "Our cluster"))
    assert catalog.site("mine").title == "Our cluster"


def test_an_unknown_site_names_the_known_ones():
    with pytest.raises(RequestError, match=r"there is no site 'lumy'; did you mean 'lumi'\? \(known: .*delta"):
        catalog.site("lumy")


# ---- strict decoding ---------------------------------------------------------------------------------------------


def mistakes(tmp_path, text):
    """All mistakes of a site file, each without the name of the file, which every one must carry."""
    path = put(tmp_path, text)
    os.environ["LUMI_MOAI_PATH"] = str(tmp_path)
    with pytest.raises(ConfigError) as caught:
        catalog.site(str(path))
    for mistake in caught.value.mistakes:
        assert mistake.startswith(str(path))
        assert "\n" not in mistake
    return [mistake.removeprefix(str(path)).lstrip(": ") for mistake in caught.value.mistakes]


@pytest.fixture(autouse=True)
def environment_put_back(monkeypatch):
    """`mistakes` sets this one by hand."""
    monkeypatch.setenv("LUMI_MOAI_PATH", "")


WRONG = {
    "unknown key": ("memory_gib: 120", "memory_gb: 120",
                    ["nodes.box: unknown key 'memory_gb'; did you mean 'memory_gib'?",
                     "nodes.box: missing key 'memory_gib'"]),
    "unknown key at the top": ("title:", "titel: x\ntitle:", ["unknown key 'titel'; did you mean 'title'?"]),
    "missing key": ("title: My cluster\n", "", ["missing key 'title'"]),
    "missing key below": ("    source: lscpu\n", "", ["nodes.box: missing key 'source'"]),
    "text for a number": ("memory_gib: 120", "memory_gib: much",
                          ["nodes.box.memory_gib: 'much' should be a whole number, it is text"]),
    "a number for text": ("title: My cluster", "title: 7", ["title: 7 should be text, it is a whole number"]),
    "a fraction for a whole number": ("max_nodes: 4", "max_nodes: 4.5",
                                      ["partitions.big.max_nodes: 4.5 should be a whole number, it is a number"]),
    "true for a number": ("max_nodes: 4", "max_nodes: true",
                          ["partitions.big.max_nodes: True should be a whole number, it is true or false"]),
    "text for a list": ("sources: [the sticker on the rack]", "sources: sticker",
                        ["sources: 'sticker' should be a list, it is text"]),
    "a list for a mapping": ("policy: {default_time: 12:00:00}", "policy: [1]",
                             ["policy: [1] should be a mapping, it is a list"]),
    "no choice": ("allocation: node", "allocation: nodes",
                  ["partitions.big.allocation: 'nodes' is none of node, resource; did you mean 'node'?"]),
    "no time": ("max_time: 1-00:00:00", "max_time: tomorrow",
                ["partitions.big.max_time: 'tomorrow' is not a time; "
                 "write minutes, HH:MM:SS, D-HH:MM:SS, or 90m, 12h, 2d"]),
    "no cores": ("cores: 0-15", "cores: 15-0",
                 ["nodes.box.cores: '15-0' is not a list of cores; write it as Linux does: 0-7,16"]),
    "no where yaml 1.1 says false": ("title: My cluster\n", "title: My cluster\ndefault_container: no\n",
                                     ["default_container: there is no 'no' in this file"]),
    "a number with a colon": ("max_nodes: 4", "max_nodes: 1:30",
                              ["partitions.big.max_nodes: '1:30' should be a whole number, it is text"]),
    "a node that is not there": ("node: box", "node: bocks",
                                 ["partitions.big.node: there is no 'bocks' in this file"]),
    "a rule that is not there": ("billing: hours", "billing: hour",
                                 ["partitions.big.billing: there is no 'hour' in this file; did you mean 'hours'?"]),
    "a device that is not there": ("device: own-device", "device: other",
                                   ["nodes.box.device: there is no devices/other.yaml"]),
    "slots of no device": ("    device: own-device\n", "", ["nodes.box: it has slots but names no device"]),
    "a slot on strange cores": ("{cores: 0-7}", "{cores: 0-16}",
                                ["nodes.box.slots[1].cores: cores [16] are not among the usable cores of the node"]),
    "a rule with no price": ("per_node: 1.0", "per_slice: 1.0",
                             ["billing.hours: give either per_node, or per_slice with slice"]),
    "empty": (OWN, "", ["None should be a mapping, it is empty"]),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_named_with_its_key(tmp_path, old, new, expected):
    assert old in OWN
    assert mistakes(tmp_path, OWN.replace(old, new, 1)) == expected


def test_all_mistakes_in_one_go(tmp_path):
    text = OWN.replace("title: My cluster", "titel: 7").replace("max_nodes: 4", "max_nodes: four").replace("0-15", "x")
    assert mistakes(tmp_path, text) == [
        "unknown key 'titel'; did you mean 'title'?",
        "nodes.box.cores: 'x' is not a list of cores; write it as Linux does: 0-7,16",
        "partitions.big.max_nodes: 'four' should be a whole number, it is text",
        "missing key 'title'",
    ]


def test_a_key_comes_once(tmp_path):
    (mistake,) = mistakes(tmp_path, OWN + "title: Again\n")
    assert mistake == "20: key 'title' is given twice"


def test_a_key_comes_once_at_any_depth(tmp_path):
    (mistake,) = mistakes(tmp_path, OWN.replace("max_nodes: 4", "max_nodes: 4, max_nodes: 400"))
    assert mistake.endswith("key 'max_nodes' is given twice")


@pytest.mark.parametrize(
    ("word", "value"),
    [("12:00:00", "12:00:00"), ("1:30", "1:30"), ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"),
     ("010", 10), ("0x1f", 31), ("1_000", "1_000"), ("2026-11-21", "2026-11-21"), ("~", None), ("null", None),
     ("true", True), ("1e3", 1000.0), ("1.5", 1.5), ("+7", 7), ("0o17", "0o17"), (".inf", ".inf"), ("=", "="),
     ("<<", "<<")],
)  # fmt: skip
def test_plain_words_mean_what_they_look_like(tmp_path, word, value):
    path = tmp_path / "one.yaml"
    path.write_text(f"key: {word}\n")
    found = catalog.read(path)["key"]
    assert found == value
    assert type(found) is type(value)


def test_the_time_traps_of_yaml_stay_times(tmp_path, monkeypatch):
    """YAML 1.1 reads 12:00:00 as 43200, which Slurm would take for thirty days of minutes."""
    monkeypatch.setenv("LUMI_MOAI_PATH", str(tmp_path))
    put(tmp_path, OWN.replace("max_time: 1-00:00:00", "max_time: 12:30:00"))
    site = catalog.site("mine")
    assert (site.partitions["big"].max_minutes, site.policy.default_minutes) == (750, 720)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"title: [1, 2\nx: }", ":2"),
        (b"\xff\xfe\x00title", "not UTF-8"),
        (b"a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        (b"? [a, b]\n: c", "a key is not a word"),
        (b"a: \x07", "broken.yaml"),
        (b"a: !!int x", "'x' is no int"),
        (b"a: !!float ''", "'' is no float"),
        (b"a: !!bool 7", "'7' is no bool"),
        (b"a: !!timestamp 2026-99-99", "could not determine a constructor"),
        (b"a: !!set [1]", "could not determine a constructor"),
        (b"[" * 200_000, "broken.yaml"),  # the C parser recurses and would crash on these
        (b"- " * 200_000, "broken.yaml"),
        (b"{a: " * 200_000, "broken.yaml"),
        (b"--- 1\n--- 2\n", "another document"),
    ],
)
def test_what_is_no_yaml_is_one_sentence(tmp_path, raw, words):
    path = tmp_path / "broken.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        catalog.site(str(path))
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    ["max_nodes: " + "9" * 5000, "max_nodes: 0x" + "f" * 9000, "title: &x [*x, *x]", "nodes: &x {a: *x}",
     "b: &b [x, x, x, x, x, x, x, x, x]\nc: &c [*b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c]\n"
     "e: &e [*d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e]\ntitle: [*f, *f, *f, *f, *f, *f]"],
    ids=["long number", "long hexadecimal", "loop", "loop of mappings", "bomb"],
)  # fmt: skip
def test_large_things_make_short_sentences(tmp_path, text):
    path = tmp_path / "large.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        catalog.site(str(path))
    assert max(map(len, caught.value.mistakes)) < 600


def test_a_file_that_is_not_there():
    with pytest.raises(ConfigError, match=r"/nowhere/x\.yaml cannot be read: No such file"):
        catalog.site("/nowhere/x.yaml")


def test_a_broken_device_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_PATH", str(tmp_path))
    put(tmp_path)
    (tmp_path / "devices" / "own-device.yaml").write_text("label: x\nmemory_gb: big\n")
    with pytest.raises(ConfigError) as caught:
        catalog.site("mine")
    assert [mistake.rpartition("/")[2] for mistake in caught.value.mistakes] == [
        "own-device.yaml: memory_gb: 'big' should be a whole number, it is text",
        "own-device.yaml: missing key 'source'",
        "own-device.yaml: missing key 'memory_mib'",
    ]


def test_all_mistakes_reach_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_PATH", str(tmp_path))
    put(tmp_path, OWN.replace("title: My cluster", "titel: x"))
    answer = CliRunner().invoke(main, ["flavors", "--site", "mine"])
    assert answer.exit_code == 1
    assert answer.stderr.count("mine.yaml") == 2
    assert "Traceback" not in answer.stderr


# ---- anything at all ---------------------------------------------------------------------------------------------

KEYS = [
    *("title", "scheduler", "nodes", "partitions", "billing", "policy", "slots", "cores", "max_time", "recognise"),
    *("device", "slice", "sources", "name", "memory_gib", "environment", "containers", "storage", "template_folder"),
]
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["slurm", "0-7", "1:00", "x"])
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5) | st.integers(), inner, max_size=8)
    ),
    max_leaves=30,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(tmp_path, raw):
    """The site in a file of these bytes, or the error; any other exception fails the test."""
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    _site.cache_clear()
    try:
        return catalog.site(str(path))
    except ConfigError as error:
        return error


@QUICK
@given(text=st.text(max_size=200))
def test_any_text_decodes_or_is_refused(tmp_path, text):
    assert isinstance(read_or_refuse(tmp_path, text.encode("utf-8", "surrogatepass")), ConfigError)


@QUICK
@given(raw=st.binary(max_size=120))
def test_any_bytes_decode_or_are_refused(tmp_path, raw):
    assert isinstance(read_or_refuse(tmp_path, raw), ConfigError)


@QUICK
@given(tree=trees)
def test_any_tree_decodes_or_is_refused(tmp_path, tree):
    read_or_refuse(tmp_path, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@QUICK
@given(data=st.data())
def test_a_good_file_with_one_value_replaced_decodes_or_is_refused(tmp_path, data):
    """Nearer to what people write: a right site with one thing in it wrong."""
    site = yaml.safe_load(OWN.replace("12:00:00", "'12:00:00'"))
    at = site
    while isinstance(at, dict) and at:
        key = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[key], dict) or data.draw(st.booleans()):
            at[key] = data.draw(trees)
            break
        at = at[key]
    read_or_refuse(tmp_path, yaml.safe_dump(site, allow_unicode=True).encode("utf-8", "surrogatepass"))


def test_the_bundled_folder_is_not_written_to(tmp_path, monkeypatch):
    """A copy of the bundled configs works from anywhere, so nothing in the code knows where they lie."""
    shutil.copytree(root("configs"), tmp_path / "configs")
    monkeypatch.setenv("LUMI_MOAI_PATH", str(tmp_path / "configs"))
    for name in SITES:
        assert catalog.site(name).template_folder == str(tmp_path / "configs" / "sites")
