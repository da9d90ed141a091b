"""Slurm's programs as small scripts on PATH, for what the real ones cannot be made to do at will: be slow, be down,
answer nonsense, or hold a thousand jobs. Real Slurm is tested under tests/lab.
"""

from pathlib import Path


def install(folder: Path, monkeypatch, **programs: str) -> Path:
    """Put *programs*, each the body of a bash script, first on PATH; each call is counted in `calls`."""
    tools = folder / "fake"
    tools.mkdir(exist_ok=True)
    for name, body in programs.items():
        tool = tools / name
        tool.write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
        tool.chmod(0o755)
    import os

    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return folder / "calls"
