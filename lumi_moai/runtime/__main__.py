"""`python -m lumi_moai.runtime`: one rank."""

import os
import sys

_ORDER = "PYTHONHASHSEED"


def _begin() -> None:
    """Start the rank, with sets in the same order on every rank and in every start.

    `list(set(words))` has another order in each process, and a script's vocabulary would be another on each rank. The
    interpreter takes the seed when it starts, so this one starts once more.
    """
    if os.environ.get(_ORDER, "random") == "random" and sys.executable:
        os.environ[_ORDER] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    from .start import main

    main(sys.argv[1:])


if __name__ == "__main__":
    _begin()
