"""`python -m lumi_moai.monitor SOURCE`: one look at this machine as one line of JSON; run on the nodes of a job."""

import json
import sys
from socket import gethostname

from ..errors import LumiMoaiError
from .job import READERS


def main(arguments: list[str]) -> int:
    """Print what the source named in *arguments* shows; 1 with a sentence on stderr when it shows nothing."""
    if len(arguments) != 1 or arguments[0] not in READERS:
        sys.stderr.write(f"usage: python -m lumi_moai.monitor {'|'.join(READERS)}\n")
        return 2
    try:
        look = READERS[arguments[0]](gethostname())
    except LumiMoaiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(look.as_json()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
