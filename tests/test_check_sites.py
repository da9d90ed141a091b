"""Scripts in the manner of several centres: for which cluster they are, and what is said of them; all written by us."""

import pytest
from test_check_rules import ADDRESS, BOUND, LUMI, PORT, job, two

from lumi_moai import catalog
from lumi_moai.check import check, read
from lumi_moai.errors import ConfigError, RequestError
from lumi_moai.gather.scripts import site_for
from lumi_moai.resources import root

HEAD = "#!/bin/bash\n#SBATCH --account=project_465000001\n"
ELSEWHERE = {
    "NERSC": "#SBATCH -A m1234_g\n#SBATCH -C gpu\n#SBATCH -q debug\n#SBATCH -t 6:00:00\n#SBATCH -n 8 --ntasks-per-node=4\n"
    "#SBATCH -c 32\n#SBATCH --gpus-per-task=1\n#SBATCH --gpu-bind=none\nsrun python train.py\n",
    "Juelich": "#SBATCH --account=cstdl --nodes=4 --ntasks-per-node=1 --cpus-per-task=48 --time=06:00:00\n"
    "#SBATCH --partition=booster\n#SBATCH --gres=gpu:4\nexport SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\n"
    "srun --cpu_bind=none python -u -m torchrun_jsc --nproc_per_node=gpu train.py\n",
    "CSC": "#SBATCH --account=project_2001234 --partition=gpu --gres=gpu:v100:4 --cpus-per-task=40 --mem=320G --time=2:00:00\n"
    "module load pytorch\nsrun torchrun --standalone --nproc_per_node=4 train.py\n",
}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_script_for_no_site_of_ours_is_one_sentence(name):
    with pytest.raises(RequestError, match="say with --site which cluster it is for"):
        site_for(None, read("#!/bin/bash\n" + ELSEWHERE[name], "job.sh"))


@pytest.mark.parametrize("name", ["Juelich", "CSC"])
def test_a_foreign_partition_is_all_that_is_said(name):
    found = check(read("#!/bin/bash\n" + ELSEWHERE[name], "job.sh"), LUMI)
    assert [(f.rule.id, f.severity) for f in found] == [("LM201", "error")]


@pytest.mark.parametrize(
    "lines",
    [
        "set -e\n#SBATCH -p standard-g\n#SBATCH -N 2\n",
        "cd $HOME\n#SBATCH --partition=small-g --gpus-per-node=1\n",
        "#SBATCH --partiton=dev-g\n",
    ],
)
def test_a_partition_that_slurm_does_not_see_still_tells_the_cluster(lines):
    assert site_for(None, read(HEAD + lines + "srun python train.py\n", "job.sh")).name == "lumi"


@pytest.mark.parametrize("program", ["singularity", "apptainer"])
def test_a_variable_for_the_inside_of_a_container_counts_there(program):
    inside = BOUND.replace("python", f"{program} exec img.sif python")
    text = job(ADDRESS, PORT, f"export {program.upper()}ENV_NCCL_SOCKET_IFNAME=hsn", inside, nodes=2)
    assert "LM701" not in [f.rule.id for f in check(read(text, "job.sh"), LUMI)]
    text = job(ADDRESS, PORT, f"export {program.upper()}ENV_NCCL_DEBUG=INFO", inside, nodes=2)
    assert "LM701" in [f.rule.id for f in check(read(text, "job.sh"), LUMI)]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [("ib0", True), ("eth0,eno1", True), ("nmn0", True), ("hsn", False), ("hsn0", False), ("=hsn0,hsn1", False),
     ("^lo,docker", False), ("$IFACE", False)],
)  # fmt: skip
def test_an_interface_that_the_site_does_not_have(value, wrong):
    text = two(ADDRESS, PORT, f"export NCCL_SOCKET_IFNAME={value}", BOUND)
    assert ("LM701" in [f.rule.id for f in check(read(text, "job.sh"), LUMI)]) is wrong


def test_a_broken_pattern_in_a_site_file_is_one_sentence(tmp_path):
    (tmp_path / "lumi-moai" / "sites").mkdir(parents=True)
    text = (root("configs") / "sites" / "lumi.yaml").read_text().replace("name: lumi\n", "name: mine\n")
    broken = text.replace("pattern: ^MIOPEN_USER_DB=", 'pattern: "([MI"').replace("image: (lumi", 'image: "[(lumi')
    (tmp_path / "lumi-moai" / "sites" / "mine.yaml").write_text(broken.replace("|rocm-7)", '|rocm-7)"'))
    with pytest.raises(ConfigError) as error:
        catalog.site("mine")
    assert str(error.value).count("is no regular expression") == 2
