"""The figures that we hold ourselves to. Ratios, each measured in one run on one machine; absolute times mean little.

`make bench` prints every figure with its bound and ends with 1 when one is missed; `python tests/bench training` prints
one subject. Not a test: a busy machine would make it fail for no reason of ours.
"""

import sys
import tempfile
from pathlib import Path

import commands
import training

SUBJECTS = {"commands": commands.figures, "training": training.figures}


def main():
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        for subject in sys.argv[1:] or SUBJECTS:
            folder = Path(name) / subject
            folder.mkdir()
            for what, value, (side, bound) in SUBJECTS[subject](folder):
                held = {"at most": value <= bound, "at least": value >= bound, "no bound": True}[side]
                missed += not held
                limit = side if side == "no bound" else f"{side} {bound:g}"
                print(f"{'ok  ' if held else 'MISS'}  {what:70}  {value:8.3f}  {limit}", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
