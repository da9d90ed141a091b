#!/bin/bash
# A real 16-node Slurm with LUMI's GPU partitions on one machine: munged, slurmdbd on MariaDB, slurmctld and one
# slurmd a node (nid005124 and up), each with 8 fake mi250 devices. Several labs can run side by side: each has its
# own folder, ports, munge key and job numbers.
#
#   LAB=folder NODES=16 bash cluster.sh up     starts it and prints the line to source: `. $LAB/env` sets SLURM_CONF
#   LAB=folder bash cluster.sh down            stops every process of it and removes the folder
#
# Needs root and what install.sh installs. LAB is $TMPDIR/lumi-moai-lab unless set. Only the node names that it adds
# to /etc/hosts stay behind.
#
# Measured on 2 cores: up 4 s, down 2 s, a job starts in 0.3 s, a requeued job in 7 s, an array of 1000 takes 20 s, and
# sacct is complete 2 s after the end (before that, ReqMem may read "16?" and a running job PENDING). --time is looked at every 30 s (fixed in Slurm), so --time=1 ends as TIMEOUT
# after 60 to 90 s; `scontrol update JobId=N EndTime=now+1` gets the same state within 30 s.
set -eu
export LC_ALL=C
L=$(realpath -m "${LAB:-${TMPDIR:-/tmp}/lumi-moai-lab}")
N=${NODES:-16}
FIRST=5124
export SLURM_CONF=$L/slurm.conf

die() { echo "cluster.sh: $*" >&2; exit 1; }
node() { printf 'nid%06d' $((FIRST + $1)); }
nodes() { echo "nid[$(printf %06d $FIRST)-$(printf %06d $((FIRST + N - 1)))]"; }
each_node() { seq 0 $((N - 1)); }

# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}

check() {
  [ "$(id -u)" = 0 ] || die "The lab starts daemons for several users, so it needs root; run it as root."
  local c
  for c in munged mariadbd mariadb-install-db slurmdbd slurmctld slurmd; do
    command -v $c >/dev/null || die "$c is missing; run install.sh first."
  done
}

# ---- down -----------------------------------------------------------------------------------------------------

# Everything of ours, also without a pid file: daemons and slurmstepd hold a file of the lab open, tasks that outlived
# their step carry our SLURM_CONF and a job number. The caller's shell has SLURM_CONF too, but no job number.
ours() {
  find /proc/[0-9]*/fd -lname "$L/*/*" 2>/dev/null | cut -d/ -f3
  local f
  for f in $(grep -lszx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ); do
    if grep -qsz '^SLURM_JOB_ID=' "$f"; then echo "$f" | cut -d/ -f3; fi
  done
}

with_children() {
  local p
  for p in "$@"; do echo "$p"; with_children $(pgrep -P "$p"); done
}

none_left() { [ -z "$(ours)" ]; }

down() {
  local all
  all=$(with_children $(ours | sort -u) | grep -vx $$ | sort -u) || true
  kill $all 2>/dev/null || true
  wait_for 3 none_left || kill -9 $all $(ours) 2>/dev/null || true
  wait_for 10 none_left || die "Processes of $L do not end: $(ours | sort -u | tr '\n' ' ')"
  # Empty control groups of steps; rmdir leaves those of another lab that are in use.
  find /sys/fs/cgroup/*/slurm_nid* -depth -type d -exec rmdir {} + 2>/dev/null || true
  rm -rf "$L"
}

# ---- up -------------------------------------------------------------------------------------------------------

port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ports and job numbers by slot. Above 20000, because jobs derive MASTER_PORT 10000 to 19999 from their number, and
# below 32768, where the kernel hands out ports to clients.
pick_slot() {
  local slot
  for slot in $(seq 0 39); do
    PORT=$((21000 + slot * 200)); FIRST_JOB=$((1000001 + slot * 100000))
    if port_free $PORT && port_free $((PORT + 1)) && port_free $((PORT + 2)) && port_free $((PORT + 10)); then return; fi
  done
  die "All port ranges from 21000 to 29000 are in use; stop old labs with 'LAB=folder bash cluster.sh down'."
}

make_folder() {
  mkdir -p "$L"/{ctl,spool,log,run,dev,db}
  chmod 755 "$L" "$L/run"
  local i
  for i in $(seq 0 7); do mknod "$L/dev/gpu$i" c 1 3; done
  for i in $(each_node); do mkdir "$L/spool/$(node "$i")"; done
  # One writer at a time: two labs may start together.
  ( flock 9
    for i in $(each_node); do grep -q " $(node "$i")\$" /etc/hosts || echo "127.0.0.1 $(node "$i")" >&9; done
  ) 9>>/etc/hosts
}

# Our own munged, so that a stale or a missing one of the machine does not matter.
start_munge() {
  head -c 128 /dev/urandom >"$L/run/munge.key"; chmod 400 "$L/run/munge.key"
  munged --force --key-file="$L/run/munge.key" --socket="$L/run/munge" --pid-file="$L/run/munge.pid" \
    --log-file="$L/log/munge.log" --seed-file="$L/run/munge.seed" 2>>"$L/log/munge.err"
}

start_database() {
  chown mysql: "$L/db"
  mariadb-install-db --no-defaults --user=mysql --datadir="$L/db" --skip-test-db >"$L/log/install.log" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$L/db" --socket="$L/db/sock" --pid-file="$L/db/pid" \
    --port=$((PORT + 2)) --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M \
    --innodb-flush-log-at-trx-commit=0 >"$L/log/db.log" 2>&1 </dev/null &
  wait_for 30 mariadb --no-defaults -S "$L/db/sock" -e 'select 1' || die "MariaDB does not start: see $L/log/db.log"
  mariadb --no-defaults -S "$L/db/sock" <<'C'
create database acct;
create user slurm@'127.0.0.1' identified by 'x'; grant all on acct.* to slurm@'127.0.0.1';
create user slurm@localhost identified by 'x'; grant all on acct.* to slurm@localhost;
C
}

write_slurmdbd_conf() {
  cat >"$L/slurmdbd.conf" <<C
AuthType=auth/munge
AuthInfo=socket=$L/run/munge
DbdHost=localhost
DbdPort=$((PORT + 1))
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 2))
StorageUser=slurm
StoragePass=x
StorageLoc=acct
LogFile=$L/log/dbd.log
PidFile=$L/run/dbd.pid
C
  chmod 600 "$L/slurmdbd.conf"
}

# True where a process may be held to a memory limit by cgroup v1. LAB_CGROUP=0 says no.
memory_cgroup() {
  local g=/sys/fs/cgroup/memory/lumi_moai_probe
  [ "${LAB_CGROUP:-1}" = 1 ] && [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ] && mkdir -p $g 2>/dev/null || return 1
  local ok=1; (echo 64M >$g/memory.limit_in_bytes) 2>/dev/null && ok=0
  rmdir $g; return $ok
}

# What sacct says of a rank that takes more than --mem. With the memory cgroup: the step OUT_OF_MEMORY 0:125, the job
# FAILED 1:0 with DerivedExitCode 0:125, as srun returned 1 (COMPLETED if the script goes on and ends with 0); if the
# batch script itself takes it, batch and job are OUT_OF_MEMORY 0:125. Each node has control groups of its own, although
# all share one kernel. Without: polling ends step and job within 2 s, the step is "CANCELLED by 0" 0:9, the job FAILED.
write_limits() {
  printf 'CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainDevices=no\n' >"$L/cgroup.conf"
  if memory_cgroup; then
    TASK_PLUGIN=task/cgroup; GATHER_PARAMS=""
    printf 'ConstrainRAMSpace=yes\n' >>"$L/cgroup.conf"
  else
    TASK_PLUGIN=task/none; GATHER_PARAMS="JobAcctGatherParams=OverMemoryKill"
  fi
}

write_slurm_conf() {
  cat >"$L/gres.conf" <<C
NodeName=$(nodes) Name=gpu Type=mi250 File=$L/dev/gpu[0-7] Flags=amd_gpu_env
C
  # LUMI gives a job whole cores: one hardware thread per core by default. sacct then counts both threads of each.
  cat >"$L/cli_filter.lua" <<'C'
function slurm_cli_setup_defaults(options, early_pass)
  options["hint"] = "nomultithread"
  return slurm.SUCCESS
end
function slurm_cli_pre_submit(options, offset) return slurm.SUCCESS end
function slurm_cli_post_submit(offset, job_id, step_id) return slurm.SUCCESS end
C
  cat >"$L/slurm.conf" <<C
ClusterName=lumi
CliFilterPlugins=cli_filter/lua
SlurmctldHost=localhost
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job may start again when its old credential has run out (cred_expire, normally 120 s).
AuthInfo=socket=$L/run/munge,cred_expire=5
StateSaveLocation=$L/ctl
SlurmdSpoolDir=$L/spool/%n
SlurmctldPidFile=$L/run/ctld.pid
SlurmdPidFile=$L/run/%n.pid
SlurmctldLogFile=$L/log/ctld.log
SlurmdLogFile=$L/log/%n.log
ReturnToService=2
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=$TASK_PLUGIN
MpiDefault=none
# Look at the queue at once, not every 3 s (batch_sched_delay) and 60 s (sched_interval).
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=50000,bf_interval=2,defer_batch
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
FirstJobId=$FIRST_JOB
MaxJobCount=20000
MaxArraySize=4001
MinJobAge=600
JobRequeue=1
KillWait=3
CompleteWait=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
$GATHER_PARAMS
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$L/run/munge
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits
NodeName=$(nodes) NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((PORT + 10))-$((PORT + 9 + N))] Sockets=1 CoresPerSocket=64 ThreadsPerCore=2 CoreSpecCount=8 RealMemory=491520 Gres=gpu:mi250:8 State=UNKNOWN
PartitionName=standard-g Nodes=$(nodes) OverSubscribe=EXCLUSIVE MaxTime=2-00:00:00 MaxNodes=1024 State=UP
PartitionName=small-g Nodes=$(nodes) MaxTime=3-00:00:00 MaxNodes=4 DefMemPerNode=65536 State=UP
PartitionName=dev-g Nodes=$(nodes) MaxTime=03:00:00 MaxNodes=32 DefMemPerNode=65536 State=UP
C
}

start_accounting() {
  slurmdbd
  wait_for 30 sacctmgr -n show cluster || die "slurmdbd does not answer: see $L/log/dbd.log"
  sacctmgr -i add cluster lumi >/dev/null
  sacctmgr -i add account project_465000001 Cluster=lumi >/dev/null
  local user
  for user in $(printf '%s\n' "$(id -un)" "${SUDO_USER:-}" | sort -u); do
    sacctmgr -i add user "$user" Account=project_465000001 >/dev/null
  done
}

all_idle() { [ "$(sinfo -h -p standard-g -t idle -o %D)" = "$N" ]; }

start_slurm() {
  slurmctld -f "$SLURM_CONF" 2>>"$L/log/ctld.log"
  wait_for 20 scontrol show config || die "slurmctld does not answer: see $L/log/ctld.log"
  local i
  for i in $(each_node); do slurmd -f "$SLURM_CONF" -N "$(node "$i")" 2>>"$L/log/$(node "$i").log"; done
  wait_for 30 all_idle || die "Not all nodes came up: $(sinfo -h -o '%D %T'); see $L/log"
}

up() {
  check
  down
  # Started from inside a job or with SLURM_* set, the daemons would pass those on to every task.
  unset "${!SLURM_@}" "${!SBATCH_@}"; export SLURM_CONF=$L/slurm.conf
  pick_slot
  make_folder
  start_munge
  start_database
  write_slurmdbd_conf
  write_limits
  write_slurm_conf
  start_accounting
  start_slurm
  echo "export SLURM_CONF=$SLURM_CONF" | tee "$L/env"
}

case ${1:-} in
  up | down) "$1" ;;
  *) die "Say 'up' or 'down', not '${1:-}'." ;;
esac
