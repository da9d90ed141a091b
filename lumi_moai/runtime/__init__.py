"""What runs on the compute nodes: it starts one rank, checks that it sits right, and runs the user's script.

`python -m lumi_moai.runtime --run RUN -- SCRIPT ARG...` is started once per rank. In reading order:

    start        the steps of one rank, in order
    ranks        who am I: torchrun's, submitit's or Slurm's variables become one `Ranks`
    meeting      the folder where the ranks of one attempt leave notes for each other
    cores        on part of a node, the ranks share out the cores that arrived
    certificate  every rank says what it sees, rank 0 judges, a wrong job stops here
    recorder     on each node, a process beside the ranks that writes down what the devices do
    alarm        the signal ahead of the time limit
    script       the user's script, its exit code, its traceback
    watch        on one machine without Slurm: a rank that dies takes the others along

Until here no torch is needed and none is imported. The rest begins when the script imports torch:

    late         runs something of ours right after the script's own `import torch`
    accelerator  `"cuda"` means this rank's device, or the CPU where there is none
    group        the process group
    parallel/    `enable()`: one script for one device trains on all ranks

It needs Python and its standard library, and torch only if the script does.
"""
