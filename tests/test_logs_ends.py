"""How runs end, in the words of Slurm, torch, NCCL, JAX, the C library and containers, and lines that only look so."""

import io

import pytest

from lumi_moai import logs

STEPS = "".join(f"iter {step}: loss 2.5, time 500.00ms, mfu 30.10%\n" for step in range(1, 40))
JOB = "slurmstepd: error: *** JOB 123 ON nid005124 "
TABLE = "Root Cause (first observed failure):\n[0]:\n  time      : 2024-05-20_16:13:38\n  host      : nid005124\n  rank      : 3 (local_rank: 3)\n"
ENDS = {
    JOB + "CANCELLED AT 2024-05-20T16:13:38 DUE TO TIME LIMIT ***": ("time_limit", None),
    JOB + "CANCELLED AT 2024-05-20T16:13:38 DUE to SIGNAL Terminated ***": ("cancelled", None),
    JOB + "CANCELLED AT 2024-05-20T16:13:38 by uid 1000 ***": ("cancelled", None),
    "slurmstepd: error: *** STEP 1.0 ON nid1 FAILED (non-zero exit code or other failure mode) ***": ("rank_crash", None),
    "slurmstepd: error: Exceeded step memory limit at some point.": ("host_out_of_memory", None),
    "slurmstepd: error: Job 123 exceeded memory limit (4195504 > 4194304), being killed": ("host_out_of_memory", None),
    "[rank5]: torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB. GPU 5 has": ("device_out_of_memory", 5),
    "RuntimeError: CUDA error: out of memory": ("device_out_of_memory", None),
    "3: RuntimeError: HIP error: out of memory": ("device_out_of_memory", 3),
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": ("device_out_of_memory", None),
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with shape[64] on"
    " /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc": ("device_out_of_memory", None),
    "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.": (
        "device_out_of_memory", None),
    "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc": ("host_out_of_memory", None),
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \nx FAILED\n" + TABLE
    + "  exitcode  : -9 (pid: 9)\n  traceback : Signal 9 (SIGKILL) received by PID 9": ("killed", 3),
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \nx FAILED\n" + TABLE
    + "  exitcode  : -11 (pid: 9)\n  traceback : Signal 11 (SIGSEGV) received by PID 9": ("rank_crash", 3),
    "[default2]:ValueError: bad": ("rank_crash", 2),
    "[default2]:[rank10]: ValueError: bad": ("rank_crash", 10),
    "2: [rank10]: ValueError: bad": ("rank_crash", 10),
    "[1,7]<stderr>:ValueError: bad": ("rank_crash", 7),
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.": ("collective_error", None),
    "HW Exception by GPU node-4 (Agent handle: 0x5) reason :GPU Hang": ("device_fault", None),
    "RuntimeError: CUDA error: an illegal memory access was encountered": ("device_fault", None),
    "FATAL:   could not open image /x.sif: no such file": ("start_failed", None),
    "python: can't open file '/a/train.py': [Errno 2] No such file or directory": ("start_failed", None),
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified": ("start_failed", None),
    "srun: error: task 3 launch failed: Slurmd could not execve job": ("start_failed", None),
    "srun: error: Application launch failed: Invalid generic resource (gres) specification": ("start_failed", None),
    "free(): invalid pointer": ("rank_crash", None),
    "Training completed. Do not forget to share your model on huggingface.co/models =)": ("completed", None),
}  # fmt: skip
IGNORED = (
    'Exception ignored in: <function X.__del__ at 0x7f>\nTraceback (most recent call last):\n  File "/x.py", line 2, in __del__\n'
    "AttributeError: 'NoneType' object has no attribute 'x'\n"
)
NO_ENDS = [
    "if job was CANCELLED AT the end DUE TO TIME LIMIT, resubmit",
    "INFO: set --retry to survive a TIME LIMIT; if out of memory use a smaller batch",
    "note: torch.cuda.OutOfMemoryError is caught by the trainer and the batch is skipped",
    "args.on_oom = restart",
    "UserWarning: ValueError: x was ignored",
    "[W1104 socket.cpp:601] [c10d] The client socket has failed to connect to [::ffff:1]:29500 (errno: 110 - Connection timed out).",
    "ncclSystemError is raised where a socket fails",
    "see FATAL: in the manual",
    IGNORED.strip(),
]


def evidence(text):
    return logs.read(io.BytesIO(text.encode()), "x.log").evidence


@pytest.mark.parametrize("line", ENDS)
def test_the_words_of_an_end(line):
    found = evidence(f"{STEPS}{line}\n")
    assert (found.why, found.rank) == ENDS[line]


@pytest.mark.parametrize("line", ENDS)
def test_what_training_went_on_after_is_no_end(line):
    found = evidence(f"{line}\n{STEPS}")
    assert found is None


@pytest.mark.parametrize("line", NO_ENDS)
def test_what_only_looks_like_an_end(line):
    assert evidence(f"{STEPS}{line}\n") is None


def test_an_error_that_python_ignored_after_the_end():
    assert evidence(f"{STEPS}Training Done\n{IGNORED}").outcome == "completed"
    assert evidence(f"{STEPS}{IGNORED}ValueError: no\n").line == "ValueError: no"
