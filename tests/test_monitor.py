"""What the sources of live values say, and what we make of it. Pure parts only; `test_smi.py` has the way there."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi_moai.errors import RunError
from lumi_moai.monitor import amdsmi, nvml, rocm_smi
from lumi_moai.monitor.sample import MIB, Look, Process, Sample, first_object, merged, number, packages

RECORDED = Path(__file__).parent / "recorded" / "monitor"
WHOLE_NODES = [
    "rocm-smi-5.6-mi250x.json",
    "rocm-smi-6.3-mi250x.json",
    "rocm-smi-7.0-mi300x.json",
    "rocm-smi-5.0-idle.json",
]


def recorded(name):
    return rocm_smi.parse((RECORDED / name).read_text(), "nid005124")


@pytest.mark.parametrize("name", WHOLE_NODES)
def test_every_version_shows_eight_devices_in_order(name):
    look = recorded(name)
    assert [sample.device for sample in look.samples] == list(range(8))
    assert {sample.node for sample in look.samples} == {"nid005124"}


def test_rocm_5():
    look = recorded("rocm-smi-5.6-mi250x.json")
    assert look.samples[2] == Sample(
        node="nid005124", device=2, memory_used_mib=58014, memory_total_mib=65520, utilisation_percent=100,
        memory_utilisation_percent=36, power_watts=472, temperature_celsius=61, memory_temperature_celsius=65,
    )  # fmt: skip
    assert look.processes[0] == Process(node="nid005124", pid=84321, name="python", memory_used_mib=57900)
    assert len(look.processes) == 8


def test_rocm_6():
    sample = recorded("rocm-smi-6.3-mi250x.json").samples[4]
    assert (sample.memory_used_mib, sample.memory_utilisation_percent, sample.power_watts) == (40400, 21, 309)


def test_rocm_7_says_not_available_in_many_places():
    look = recorded("rocm-smi-7.0-mi300x.json")
    assert look.samples[0].power_watts == 612
    assert look.samples[0].temperature_celsius == 57  # the junction; the edge says N/A
    assert look.samples[3].utilisation_percent is None
    assert look.samples[3].memory_used_mib is None
    assert look.processes == (
        Process(node="nid005124", pid=555, name="my, trainer", memory_used_mib=1288490188800 / MIB),
    )


@pytest.mark.parametrize("name", ["rocm-smi-5.6-mi250x.json", "rocm-smi-6.3-mi250x.json", "rocm-smi-5.0-idle.json"])
def test_the_second_die_has_no_power_which_is_not_zero(name):
    samples = recorded(name).samples
    assert [sample.power_watts is None for sample in samples] == [False, True] * 4
    groups = packages(samples, 2)
    assert [[sample.device for sample in group] for group in groups] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(group[0].power_watts > 80 for group in groups)


def test_dies_of_different_packages_are_not_put_together():
    """A job on part of a node may hold the second die of one package and the first of another."""
    groups = packages(recorded("rocm-smi-6.3-part-of-a-node.json").samples, 2)
    assert [[sample.device for sample in group] for group in groups] == [[0], [1]]
    assert [group[0].power_watts for group in groups] == [None, 288]


def test_packages_end_at_the_node():
    samples = [Sample(node="a", device=0, power_watts=300.0), Sample(node="b", device=0), Sample(node="b", device=1)]
    assert [len(group) for group in packages(samples, 2)] == [1, 1, 1]


def test_devices_with_a_sensor_each_stand_alone():
    assert [len(group) for group in packages(recorded("rocm-smi-7.0-mi300x.json").samples, 1)] == [1] * 8


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "not json", "{}", '{"system": {"PID1": "a, 1, 2, 3, 4"}}', '{"card": {}}', '{"card0": 3}',
     '"{}"', "ERROR:root:Driver not initialized (amdgpu not found in modules)"],
)  # fmt: skip
def test_no_device_is_one_sentence(text):
    with pytest.raises(RunError) as caught:
        rocm_smi.parse(text, "n")
    assert "\n" not in str(caught.value)


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
)
def test_any_json_is_read_or_refused(value):
    text = json.dumps({"card0": value, "card1": {}, "system": value})
    look = rocm_smi.parse(text, "n")
    assert look.samples


def test_card_ten_comes_after_card_nine():
    cards = {f"card{number}": {"GPU use (%)": str(number)} for number in (10, 2, 9, 0)}
    assert [sample.utilisation_percent for sample in rocm_smi.parse(json.dumps(cards), "n").samples] == [0, 2, 9, 10]


@pytest.mark.parametrize(
    ("text", "value"),
    [("95.0", 95), ("95.0 W", 95), (95, 95), ("71%", 71), ("N/A", None), ("N/A (Secondary die)", None), (None, None),
     ("", None), ("nan", None), ("inf", None), (True, None), ("unknown", None)],
)  # fmt: skip
def test_numbers_in_vendors_words(text, value):
    assert number(text) == value


@given(st.text() | st.floats() | st.integers())
def test_a_number_is_finite_or_nothing(value):
    found = number(value)
    assert found is None or math.isfinite(found)


def test_the_first_object_between_warnings():
    assert first_object('WARNING: low power\n{"a": 1} trailing {"b": 2}') == {"a": 1}


# ---- the wire ----------------------------------------------------------------------------------------------------

LOOK = Look(
    samples=(Sample(node="a", device=0, power_watts=1.5), Sample(node="a", device=1), Sample(node="a", device=2)),
    processes=(Process(node="a", pid=1, name="x", device=2), Process(node="a", pid=2, name="y")),
)


def test_a_look_survives_the_wire():
    assert Look.from_json(json.loads(json.dumps(LOOK.as_json()))) == LOOK


@pytest.mark.parametrize("data", [None, 3, [], {}, {"samples": [{}], "processes": []}, {"samples": 3, "processes": []},
                                  {"samples": [{"node": "a", "device": 0, "colour": 1}], "processes": []}])  # fmt: skip
def test_another_version_is_one_sentence(data):
    with pytest.raises(RunError):
        Look.from_json(data)


def test_only_the_jobs_devices():
    look = LOOK.only([2, 1])
    assert [sample.device for sample in look.samples] == [0, 1]
    assert look.samples[0].power_watts is None
    assert [(process.pid, process.device) for process in look.processes] == [(1, 1), (2, None)]


def test_only_the_jobs_processes():
    assert [process.pid for process in LOOK.only_pids([2, 99]).processes] == [2]


def test_looks_of_nodes_are_put_together():
    assert len(merged([LOOK, LOOK]).samples) == 6
    assert merged([]) == Look()


# ---- libraries: stand-ins with the answers of the real ones ------------------------------------------------------


class VendorError(Exception):
    """What the libraries raise for a value that a chip does not have."""


def refuse(*_):
    raise VendorError


def fake_amdsmi(**more):
    """A library that answers as amdsmi does on two dies of one package."""
    plain = {
        "AmdSmiException": VendorError,
        "AmdSmiTemperatureType": SimpleNamespace(HOTSPOT="hotspot", VRAM="vram"),
        "AmdSmiTemperatureMetric": SimpleNamespace(CURRENT=0),
        "amdsmi_get_processor_handles": lambda: [0, 1],
        "amdsmi_get_gpu_vram_usage": lambda handle: {"vram_total": 65520, "vram_used": 1000 + handle},
        "amdsmi_get_gpu_activity": lambda handle: {"gfx_activity": 99, "umc_activity": "N/A", "mm_activity": 0},
        "amdsmi_get_power_info": lambda handle: {
            "current_socket_power": "N/A", "average_socket_power": 0 if handle else 301, "power_limit": 500
        },
        "amdsmi_get_temp_metric": lambda handle, kind, metric: {"hotspot": 55, "vram": 61}[kind],
        "amdsmi_get_gpu_process_list": lambda handle: [
            {"name": "python", "pid": 7 + handle, "mem": 0, "memory_usage": {"vram_mem": 512 * MIB}}
        ],
    }  # fmt: skip
    return SimpleNamespace(**{**plain, **more})


def test_amdsmi():
    look = amdsmi.look(fake_amdsmi(), "n")
    assert look.samples == (
        Sample(node="n", device=0, memory_used_mib=1000, memory_total_mib=65520, utilisation_percent=99,
               power_watts=301, temperature_celsius=55, memory_temperature_celsius=61),
        Sample(node="n", device=1, memory_used_mib=1001, memory_total_mib=65520, utilisation_percent=99,
               temperature_celsius=55, memory_temperature_celsius=61),
    )  # fmt: skip
    assert [(item.pid, item.device, item.memory_used_mib) for item in look.processes] == [(7, 0, 512), (8, 1, 512)]


def test_amdsmi_of_rocm_7_names_the_power_anew():
    library = fake_amdsmi(amdsmi_get_power_info=lambda handle: {"socket_power": 620, "current_socket_power": "N/A"})
    assert amdsmi.look(library, "n").samples[0].power_watts == 620


def test_amdsmi_that_refuses_a_value():
    names = ("gpu_vram_usage", "gpu_activity", "power_info", "temp_metric", "gpu_process_list")
    look = amdsmi.look(fake_amdsmi(**{f"amdsmi_get_{name}": refuse for name in names}), "n")
    assert look.samples[0] == Sample(node="n", device=0)
    assert look.processes == ()


def test_amdsmi_without_devices():
    with pytest.raises(RunError, match="no device"):
        amdsmi.look(fake_amdsmi(amdsmi_get_processor_handles=list), "n")


def test_amdsmi_that_is_not_there():
    with pytest.raises(RunError, match="not installed"):
        amdsmi.read("n")


def fake_nvml(**more):
    """A library that answers as pynvml does on one chip."""
    field = SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=58))
    plain = {
        "NVMLError": VendorError,
        "NVML_SUCCESS": 0,
        "NVML_TEMPERATURE_GPU": 0,
        "NVML_FI_DEV_MEMORY_TEMP": 82,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda device: device,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=1024 * MIB, total=40960 * MIB),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97, memory=41),
        "nvmlDeviceGetPowerUsage": lambda handle: 312_345,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 49,
        "nvmlDeviceGetFieldValues": lambda handle, fields: [field],
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=42, usedGpuMemory=900 * MIB)],
        "nvmlSystemGetProcessName": lambda pid: b"/usr/bin/python3.12",
    }
    return SimpleNamespace(**{**plain, **more})


def test_nvml():
    look = nvml.look(fake_nvml(), "n")
    assert look.samples == (
        Sample(node="n", device=0, memory_used_mib=1024, memory_total_mib=40960, utilisation_percent=97,
               memory_utilisation_percent=41, power_watts=312.345, temperature_celsius=49,
               memory_temperature_celsius=58),
    )  # fmt: skip
    assert look.processes == (Process(node="n", pid=42, name="python3.12", memory_used_mib=900, device=0),)


def test_nvml_that_refuses_a_value():
    names = [name for name in vars(fake_nvml()) if name.startswith("nvmlDeviceGet")]
    refusing = {name: refuse for name in names if name not in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex")}
    assert nvml.look(fake_nvml(**refusing), "n") == Look(samples=(Sample(node="n", device=0),))


def test_nvml_of_a_chip_without_memory_sensor():
    field = SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=0))
    look = nvml.look(fake_nvml(nvmlDeviceGetFieldValues=lambda *_: [field]), "n")
    assert look.samples[0].memory_temperature_celsius is None


def test_the_stand_in_has_no_function_that_pynvml_lacks():
    pynvml = pytest.importorskip("pynvml")
    assert [name for name in vars(fake_nvml()) if not hasattr(pynvml, name)] == []


def test_nvml_without_a_driver():
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(RunError, match="does not answer"):
            nvml.read("n")
    else:  # a machine with a real device: the real thing
        assert nvml.read("n").samples[0].memory_total_mib > 0
