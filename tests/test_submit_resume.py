"""`submit --resume`: a run on this machine goes on in another one, on fewer devices, and the two logs are one curve."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lumi_moai
from lumi_moai.errors import RequestError
from lumi_moai.launch.earlier import earlier
from lumi_moai.launch.prepare import prepare
from lumi_moai.launch.run import from_submission
from lumi_moai.launch.submission import submit

SCRIPT = """
import sys, time
import torch, torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
import helper
torch.manual_seed(0)
x = torch.randn(48, 6)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
optim = torch.optim.AdamW(model.parameters(), lr=0.01)
for epoch in range(int(sys.argv[1])):
    for (a,) in DataLoader(TensorDataset(x), batch_size=16, shuffle=True):
        loss = F.cross_entropy(model(a), (a.sum(1) > 0).long())
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(f"loss {loss.item():.6f}", flush=True)
        time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    monkeypatch.setenv("LUMI_MOAI_SITE", "local")


def losses(text):
    return [float(number) for number in re.findall(r"^loss (\S+)", text, re.MULTILINE)]


def resumed(word, **given):
    return from_submission(submit(prepare((), given, earlier=earlier(word))))


def test_a_run_goes_on_in_another_on_fewer_devices(work):
    Path("train.py").write_text(SCRIPT)
    Path("helper.py").write_text("")
    words = {"flavor": "Medium", "parallel": "auto", "self_check": "off", "env": {"MINE": "kept"}}
    first = lumi_moai.submit("train.py", 8, 0.3, checkpoint="1", **words)
    deadline = time.monotonic() + 60
    while not list(first.folder.path.glob("checkpoints/step-?")) and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(RequestError, match=r"is still RUNNING, and two jobs would write the same files"):
        earlier(first.job_id)
    first.cancel()
    first.wait(seconds=30)
    Path("helper.py").write_text("raise SystemExit('this came later')")
    second = resumed(first.job_id, flavor="Small")
    job = second.folder.job()
    assert (job["launch"]["world_size"], job["parallel"]["mode"], job["resumed_from"]) == (
        1, "auto", str(first.folder.path))  # fmt: skip
    assert ("MINE", "kept") in [(each["name"], each["value"]) for each in job["job"]["environment"]]
    assert second.wait(seconds=60) == "COMPLETED", second.logs()
    step = int(re.search(r"lumi-moai: resumed at step (\d+)", second.logs())[1])
    assert f"lumi-moai: [Step {step + 1}] | Duration" in second.logs()
    Path("helper.py").write_text("")
    plain = subprocess.run([sys.executable, "train.py", "8", "0"], capture_output=True, text=True, check=True).stdout
    assert len(losses(first.logs())) < 24
    assert losses(first.logs() + second.logs()) == pytest.approx(losses(plain), abs=2e-6)


def test_what_cannot_go_on_is_refused(work):
    Path("train.py").write_text("print('short')")
    run = lumi_moai.submit("train.py", flavor="Small")
    assert run.wait(seconds=60) == "COMPLETED"
    with pytest.raises(RequestError, match=r"has no checkpoint in .*checkpoints; it was too short"):
        earlier(run.job_id)
    (run.folder.path / "checkpoints" / "step-3").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"takes script and arguments from the earlier run, so 'train.py' has no pl"):
        prepare(("train.py",), {}, earlier=earlier(str(run.folder.path)))
