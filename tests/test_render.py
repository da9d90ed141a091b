"""The script: golden files for every flavor of every site in both modes, a reason for every line, and no injection."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import nasty, printable, words

from lumi_moai import catalog, flavor
from lumi_moai.errors import ConfigError, RequestError
from lumi_moai.job import Request, make_job
from lumi_moai.launch.prepare import template_folders
from lumi_moai.render import directive, render
from lumi_moai.resources import root

GOLDEN = Path(__file__).parent / "golden"
ACCOUNTS = {"lumi": "project_465000001", "local": None}
SITES = [path.stem for path in sorted((root("configs") / "sites").glob("*.yaml"))]


def job_on(
    site_name, flavor_name, *, run_folder="/scratch/project/runs/train", work_folder="/home/user", minutes=None, **asked
):
    site = catalog.site(site_name)
    minutes = minutes or site.policy.default_minutes
    placement = flavor.place(site, flavor.find(flavor_name, catalog.flavors()), minutes=minutes)
    asked = {"command": ("train.py", "--batch-size", "32"), "account": ACCOUNTS.get(site_name, "project"), **asked}
    request = Request(minutes=minutes, **asked)
    return make_job(
        site, placement, request, command=request.command, python="/usr/bin/python3", run_folder=run_folder,
        work_folder=work_folder,
    )  # fmt: skip


def script_for(site_name, flavor_name, **asked):
    site = catalog.site(site_name)
    return render(job_on(site_name, flavor_name, **asked), [str(root("templates"))], site.template)


def held(site_name):
    site = catalog.site(site_name)
    for one in catalog.flavors():
        try:
            flavor.place(site, one, minutes=site.policy.default_minutes)
        except RequestError:
            continue
        yield one.name


ALL = [(site, name, mode) for site in SITES for name in held(site) for mode in ("srun", "torchrun")]


def check_golden(name, text):
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, f"{path} differs; look at the change, then `make golden`"


@pytest.mark.parametrize(("site", "name", "mode"), ALL)
def test_golden(site, name, mode):
    check_golden(f"{site}/{name}-{mode}.sh", script_for(site, name, launcher=mode).text)


def test_golden_files_are_all_used():
    wanted = {GOLDEN / f"{site}/{name}-{mode}.sh" for site, name, mode in ALL}
    wanted |= {GOLDEN / "lumi/array.sh", GOLDEN / "lumi/bare.sh"}
    assert set(GOLDEN.rglob("*.sh")) == wanted


def test_golden_array_and_options():
    script = script_for("lumi", "Medium", array="0-9%2", sbatch={"qos": "long", "exclusive": ""}, env={"A": "b c"})
    check_golden("lumi/array.sh", script.text)


def test_golden_without_container():
    check_golden("lumi/bare.sh", script_for("lumi", "xLarge", container="none").text)


@pytest.mark.parametrize(("site", "name", "mode"), ALL)
def test_every_line_has_an_origin_and_a_reason(site, name, mode):
    bare = [
        line.text
        for line in script_for(site, name, launcher=mode).lines
        if line.text and not (line.origin and line.reason)
    ]
    assert not bare


@pytest.mark.parametrize(("site", "name", "mode"), ALL)
def test_bash_can_read_it(site, name, mode):
    subprocess.run(["bash", "-n"], input=script_for(site, name, launcher=mode).text, text=True, check=True)


def test_same_inputs_same_bytes_on_another_host(tmp_path):
    """A fresh interpreter with another home, host name, locale and time zone."""
    probe = "from test_render import script_for; import sys; sys.stdout.write(script_for('lumi', '8xLarge').text)"
    env = {"PYTHONPATH": f"{Path(__file__).parent.parent}:{Path(__file__).parent}", "HOME": str(tmp_path), "TZ": "Asia/Tokyo",
           "LC_ALL": "C", "HOSTNAME": "other", "PATH": "/nowhere"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", probe], env=env, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == script_for("lumi", "8xLarge").text


def run_for_real(script, folder):
    """Run *script* under real bash with programs on PATH that stand in for the cluster's; returns what `srun` was told.

    The stand-ins only write down their words: what is tested is bash's reading of our text.
    """
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("srun", "module", "scontrol"):
        tool = tools / name
        tool.write_text(
            f'#!/bin/bash\n[ {name} = srun ] && printf "%s\\0" "$@" > "$WORDS/words.$RANDOM$RANDOM"\nexit 0\n'
        )
        tool.chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_USER": "u",
           "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_NODELIST": "n", "HOME": str(folder),
           "WORDS": str(folder)}  # fmt: skip
    done = subprocess.run(
        ["bash", "-s"], input=script, text=True, env=env, cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [
        path.read_text().split("\0")[:-1] for path in sorted(folder.glob("words.*"), key=lambda p: p.stat().st_mtime_ns)
    ]
    for path in folder.glob("words.*"):
        path.unlink()
    return told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(st.one_of(printable, nasty), max_size=4), value=st.one_of(printable, nasty))
@example(arguments=["$(touch pwned)", "a'b", '"', "\\", "-c"], value="'$(touch pwned)'")
def test_no_value_is_run_and_every_word_arrives(tmp_path, arguments, value):
    folder = tmp_path / 'it\'s $(touch pwned) "here"'
    folder.mkdir(exist_ok=True)
    script = script_for(
        "lumi", "xLarge", command=("train.py", *arguments), env={"X": value}, container="none",
        run_folder=f"{folder}/run", work_folder=str(folder),
    )  # fmt: skip
    told = run_for_real(script.text, folder)
    assert ["train.py", *arguments] in [words[-1 - len(arguments) :] for words in told]
    assert not list(tmp_path.rglob("pwned"))


@given(value=words)
def test_no_value_leaves_its_directive(value):
    try:
        text = directive(value)
    except RequestError:
        assert not value.isprintable()
        return
    assert len(text.splitlines()) == 1


@settings(max_examples=50, deadline=None)
@given(account=words, run=words, work=words, value=words)
def test_no_value_adds_a_line(account, run, work, value):
    plain = script_for("local", "Small").text.count("\n")
    try:
        script = script_for(
            "local", "Small", account=account, run_folder=f"/{run}", work_folder=f"/{work}", env={"X": value}
        )
    except RequestError:
        return
    assert script.text.count("\n") == plain + 1


@pytest.mark.parametrize("name", ["a\nb", "a'b", "$(x)", "a b", "", "-x", "a/b", "a\0b", "x" * 200])
def test_names_that_cannot_be(name):
    with pytest.raises(RequestError, match="job name"):
        script_for("lumi", "Small", name=name)


def test_what_a_lumi_job_needs_stands_in_the_script():
    text = script_for("lumi", "2xLarge").text
    for part in (
        "--mem=480G", "--gpus-per-node=8", "--cpus-per-task=7", "singularity run", "lumi-aif-singularity-bindings",
        "--kill-on-bad-exit=1 --wait=60", "--open-mode=append", "--requeue", "--signal=USR2@", "%x-%j",
        "FI_MR_CACHE_MONITOR=userfaultfd", "MIOPEN_USER_DB_PATH", "TRITON_CACHE_DIR", "NCCL_SOCKET_IFNAME",
    ):  # fmt: skip
        assert part in text
    assert re.search(r"srun \\\n +--cpus-per-task=7", text), "srun does not inherit it"
    for part in ("wckey", "gpus-per-task", "NCCL_NET_GDR_LEVEL", "localhost", "--mem=0"):
        assert part not in text


def test_part_of_a_node_has_no_mask():
    assert "mask_cpu" not in script_for("lumi", "Medium").text
    assert "mask_cpu" in script_for("lumi", "xLarge").text
    assert "mask_cpu" not in script_for("lumi", "xLarge", launcher="torchrun").text


def test_a_site_brings_its_own_template(work, own_world):
    folder = own_world / ".config/lumi-moai/sites"
    folder.mkdir(parents=True)
    bundled = (root("configs") / "sites" / "lumi.yaml").read_text()
    (folder / "mine.yaml").write_text(bundled + "\ntemplate: mine.j2\n")
    (folder / "mine.j2").write_text(
        '{% extends "job.sbatch.j2" %}{% block setup %}\nsource /etc/mine{{ because("site", "mine") }}\n{% endblock %}'
    )
    site = catalog.site("mine")
    job = job_on("mine", "xLarge", account="project_465000001")
    text = render(job, template_folders(site), site.template).text
    assert "source /etc/mine" in text
    assert "module purge" not in text


@pytest.mark.parametrize(
    ("body", "words"), [("{{ job.acount }}", "has no attribute 'acount'"), ("{% if %}", "Expected an expression")]
)
def test_a_broken_template_is_a_sentence(tmp_path, body, words):
    (tmp_path / "x.j2").write_text(body)
    with pytest.raises(ConfigError, match="template x.j2") as error:
        render(job_on("lumi", "Small"), [str(tmp_path)], "x.j2")
    assert words in str(error.value)


def test_a_missing_template_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"no template .*nowhere.j2"):
        render(job_on("lumi", "Small"), [str(tmp_path)], "nowhere.j2")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: giving a folder to somebody else needs root")
def test_a_cache_folder_that_somebody_else_made_is_refused(tmp_path):
    words = re.search(r"bash -c '([^']*LUMI_MOAI_CACHE[^']*)'", script_for("lumi", "xLarge").text)[1]

    def made_in(folder):
        env = {"LUMI_MOAI_CACHE": str(folder), "PATH": "/usr/bin:/bin"}
        return subprocess.run(["bash", "-c", words, "caches", "miopen", "a b"], env=env).returncode == 0

    assert made_in(tmp_path / "mine")
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "mine").iterdir()} == {
        "miopen": 0o700,
        "a b": 0o700,
    }
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    assert made_in(tmp_path / "mine"), "a requeued job finds its own"
    (tmp_path / "theirs").mkdir(mode=0o777)
    os.chown(tmp_path / "theirs", 65534, 65534)
    assert not made_in(tmp_path / "theirs")
    assert not list((tmp_path / "theirs").iterdir())
