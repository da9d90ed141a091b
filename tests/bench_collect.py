"""`collect` on a large synthetic log: peak memory, and its speed against `grep -c Throughput` on the same file.

Run by hand or by `make bench`: python tests/bench_collect.py [GIGABYTES]
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP = "| INFO     | __main__:main:136 - [Step {}/99999999] | Loss: {:.7f} | Duration: {:.2f} | Throughput: {:.2f} tokens/sec\n"
OTHER = (Path(__file__).parent / "recorded/logs/moai/llama2_32gpu.log").read_text().splitlines(keepends=True)[:-6]


def write(path: Path, gigabytes: float) -> None:
    """Step lines with other real lines in between, one in ten."""
    step = 0
    with open(path, "w") as file:
        while file.tell() < gigabytes * 1e9:
            for _ in range(20_000):
                step += 1
                file.write(STEP.format(step, 2 / step**0.1, 1 + step % 89 / 89, 300_000 + step * 7919 % 9973))
                if step % 10 == 0:
                    file.write(OTHER[step // 10 % len(OTHER)])


def timed(*words: str) -> float:
    """Seconds that the program took. Into a pipe: grep stops at the first hit when it sees /dev/null."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "big.log"
        write(log, gigabytes)
        timed("grep", "-c", "Throughput", str(log))
        grep = timed("grep", "-c", "Throughput", str(log))
        program = "import sys; from lumi_moai.cli import main; main(['collect', sys.argv[1]])"
        ours = timed(sys.executable, "-c", program, str(log))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"collect of {gigabytes:g} GB: {peak:.0f} MiB at most, {ours:.1f} s, {grep / ours:.4f} of the speed of grep -c"
    )


if __name__ == "__main__":
    main()
