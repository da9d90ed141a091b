"""`python -m lumi_moai.runtime`: one rank."""

import sys

from .start import main

if __name__ == "__main__":
    main(sys.argv[1:])
