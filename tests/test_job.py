"""What a request becomes, and what is refused before anything is made."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_render import job_on

from lumi_moai.errors import RequestError
from lumi_moai.job import GUARDED, Request, array_indices, script_name
from lumi_moai.plan import Layout, Wishes


def request_of(**asked):
    return Request(**{"command": ("train.py",), "minutes": 60, **asked})


@pytest.mark.parametrize("array", ["", "x", "1-", "0-9%", "-1", "0-4:0", "1;2", "1 2", "²"])
def test_arrays_that_are_none(array):
    with pytest.raises(RequestError, match="--array"):
        request_of(array=array)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(1, 5)), min_size=1))
def test_indices_of_an_array(parts):
    text = ",".join(f"{first}-{first + more}:{stride}" for first, more, stride in parts)
    wanted = [index for first, more, stride in parts for index in range(first, first + more + 1, stride)]
    assert list(array_indices(f"{text}%3")) == wanted


@pytest.mark.parametrize("option", sorted(GUARDED))
def test_guarded_options_say_how_else(option):
    with pytest.raises(RequestError, match=f"--sbatch {option} is not allowed: "):
        request_of(sbatch={option: "1"})


@pytest.mark.parametrize("option", ["-n", "Mem", "a b", "x\n", "", "--qos"])
def test_options_that_are_none(option):
    with pytest.raises(RequestError, match="long sbatch option"):
        request_of(sbatch={option: "1"})


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", "", "A\n", "é"])
def test_variables_that_are_none(name):
    with pytest.raises(RequestError, match="variable name"):
        request_of(env={name: "x"})


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password"])
def test_secrets_do_not_reach_a_script(name):
    with pytest.raises(RequestError, match="looks like a secret"):
        request_of(env={name: "x"})


def test_the_users_variable_replaces_the_sites():
    job = job_on("lumi", "2xLarge", env={"OMP_NUM_THREADS": "7"})
    assert [v.value for v in job.environment if v.name == "OMP_NUM_THREADS"] == ["7"]


@pytest.mark.parametrize("account", ["x", "project_46500000", "project_4650000011", "project_465000001\n"])
def test_accounts_that_are_none(account):
    with pytest.raises(RequestError, match="not a project of site lumi"):
        job_on("lumi", "Small", account=account)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("tp=3", "does not divide the 16 ranks"),
        ("tp=16", "tp stays in a node"),
        ("pp=2,fsdp", "together with data=shard"),
    ],
)
def test_layouts_that_the_devices_cannot_have_are_refused_ahead_of_the_queue(layout, words):
    wishes = Wishes(mode="auto", layout=Layout.parse(layout))
    with pytest.raises(RequestError, match=words):
        job_on("lumi", "2xLarge", wishes=wishes)
    job_on("lumi", "2xLarge", wishes=replace(wishes, mode="script"))


def test_an_account_is_needed():
    with pytest.raises(RequestError, match="bills every job to a project"):
        job_on("lumi", "Small", account=None)


def test_an_unknown_container():
    with pytest.raises(RequestError, match=r"no container 'laf'; did you mean 'laif'\?"):
        job_on("lumi", "Small", container="laf")


@pytest.mark.parametrize(
    ("name", "mode", "tasks", "cpus", "masks"),
    [("xLarge", "srun", 8, 7, 8), ("xLarge", "torchrun", 1, 56, 0), ("Large", "srun", 4, 7, 0), ("Large", "torchrun", 1, 28, 0),
     ("1.5xLarge", "srun", 6, 7, 0)],
)  # fmt: skip
def test_shapes(name, mode, tasks, cpus, masks):
    job = job_on("lumi", name, launcher=mode)
    assert (job.tasks_per_node, job.cpus_per_task, len(job.masks)) == (tasks, cpus, masks)
    assert job.tasks_per_node * job.cpus_per_task <= 56


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 1), (2, 60), (3, 90), (4, 120), (60, 120)])
def test_the_signal_leaves_half_of_the_time_and_a_minute_by_which_slurm_may_send_it_early(minutes, seconds):
    assert job_on("lumi", "Small", minutes=minutes).signal_seconds == seconds


@pytest.mark.parametrize(
    ("script", "name"), [("a/train.py", "train"), ("tr ain;$(x).py", "tr_ain___x_"), ("-.py", "run"), ("é.py", "é")]
)
def test_job_names_from_scripts(script, name):
    assert script_name(script) == name
