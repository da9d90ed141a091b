#!/bin/bash
# One LUMI-G node under a real Linux kernel: a QEMU guest with 64 cores, 8 L3 groups and 4 NUMA nodes, and in it
# slurmctld and slurmd with task/affinity and task/cgroup (cgroup v1, ConstrainCores, ConstrainDevices), 8 fake mi250
# devices and the first core of each L3 group withheld. The processor is emulated, so no KVM is needed.
#
#   NODE_OUT=folder bash node.sh SCRIPT      runs SCRIPT as root in the guest and prints what it prints
#
# The exit code is the script's; 3 says that the guest never came to the end of it. In the guest:
#   - this machine's whole file tree is seen at the same paths, and every write to it goes to the guest's RAM and is
#     lost; NODE_VISIBLE=dir1:dir2 names folders that must be there (the guest refuses to start the script otherwise);
#   - NODE_OUT (same path inside; default a folder in NODE_LAB) is the one folder whose files come back;
#   - SLURM_CONF is set, HOME is an empty folder, partitions are standard-g (whole nodes) and small-g (shared).
# NODE_S ends it after so many seconds (300). NODE_LAB ($TMPDIR/lumi-moai-node) keeps the kernel for the next boot.
# NODE_SOCKETS=1 tells Slurm one socket of 64 cores instead of 8 of 8: then a shared job gets neighbouring cores
# (1-7,9-15), while with 8 its cores are dealt out over the L3 groups. Needs root and what install.sh installs.
#
# Measured on 2 cores: 12 s to a shell with Slurm up, 1 to 2 s a step; importing torch takes 30 s. KVM is not used:
# 64 processors on two real ones hung in the firmware, and one emulating thread (thread=single) is five times faster
# than one a processor.
set -eu
export LC_ALL=C
die() { echo "node.sh: $*" >&2; exit 3; }

[ -f "${1:-}" ] || die "Name the script to run in the guest: node.sh SCRIPT."
SCRIPT=$(realpath "$1")
W=$(realpath -m "${NODE_LAB:-${TMPDIR:-/tmp}/lumi-moai-node}")
OUT=$(realpath -m "${NODE_OUT:-$W/out}")
RUN=$W/boot.$$

check() {
  [ "$(id -u)" = 0 ] || die "The guest reads this machine's file tree, so it needs root; run it as root."
  local c
  for c in qemu-system-x86_64 busybox cpio modprobe dpkg slurmctld slurmd munged; do
    command -v $c >/dev/null || die "$c is missing; run install.sh first."
  done
}

# ---- the kernel, fetched once ---------------------------------------------------------------------------------

fetch_kernel() {
  local image
  image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/{print $2; exit}')
  [ -n "$image" ] || die "apt knows no linux-image-amd64; run 'apt-get update' first."
  (cd "$W" && apt-get download -qq "$image" 2>&1) || die "The kernel package $image could not be fetched."
  dpkg -x "$W/$image"_*.deb "$W/k"
  rm "$W/$image"_*.deb
  depmod -b "$W/k" "$(ls "$W/k/lib/modules")"
}

# Modules in the order in which insmod wants them.
copy_modules() {
  local i=10 m f
  for m in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "$W/k" -S "$(cat "$W/k/version")" --show-depends $m
  done | awk '/insmod/ && !seen[$2]++ {print $2}' | while read -r f; do
    cp "$f" "$1/$i-$(basename "$f")"; i=$((i + 1))
  done
}

# Runs under a lock: two guests may start together in a fresh folder.
prepare() {
  mkdir -p "$W"
  ( flock 9
    [ -f "$W/k/ready" ] && exit 0
    rm -rf "$W/k" "$W/base"
    fetch_kernel
    ls "$W/k/lib/modules" >"$W/k/version"
    mkdir -p "$W"/base/{bin,mod,proc,sys,dev,lower,rw,root}
    cp "$(command -v busybox)" "$W/base/bin/busybox"
    copy_modules "$W/base/mod"
    touch "$W/k/ready"
  ) 9>"$W/lock"
}

# ---- what the guest runs --------------------------------------------------------------------------------------

write_init() {
  cat >"$1" <<I
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; hostname nid005124
for m in /mod/*; do insmod \$m; done
mount -t tmpfs rw /rw; mkdir /rw/up /rw/work
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower
mount -t overlay -o lowerdir=/lower,upperdir=/rw/up,workdir=/rw/work root /root
for d in run var/log; do mount -t tmpfs t /root/\$d; done
mount -t proc p /root/proc; mount -t sysfs s /root/sys; mount -t devtmpfs d /root/dev
mkdir -p /root/dev/shm /root/dev/pts; mount -t tmpfs t /root/dev/shm; mount -t devpts d /root/dev/pts
mkdir -p "/root/$OUT"; mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 out "/root/$OUT"
mkdir -p /root/run/lab; cp /lab/* /root/run/lab/
chroot /root /bin/bash /run/lab/boot.sh
sync; poweroff -f
I
  chmod +x "$1"
}

write_slurm() {
  local sockets=${NODE_SOCKETS:-8}
  cat >"$1/slurm.conf" <<'C'
ClusterName=lumi
SlurmctldHost=nid005124(10.9.9.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/run/lab/munge
StateSaveLocation=/run/lab/ctl
SlurmdSpoolDir=/run/lab/spool
SlurmctldPidFile=/run/lab/ctld.pid
SlurmdPidFile=/run/lab/slurmd.pid
SlurmctldLogFile=/run/lab/ctld.log
SlurmdLogFile=/run/lab/slurmd.log
ProctrackType=proctrack/cgroup
TaskPlugin=task/affinity,task/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=50000,bf_interval=2,defer_batch
GresTypes=gpu
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
# An emulated node may be slow to answer.
SlurmdTimeout=3000
MessageTimeout=100
PartitionName=standard-g Nodes=nid005124 OverSubscribe=EXCLUSIVE MaxTime=2-00:00:00 State=UP
PartitionName=small-g Nodes=nid005124 MaxTime=3-00:00:00 DefMemPerNode=65536 State=UP
C
  echo "NodeName=nid005124 NodeAddr=10.9.9.1 Sockets=$sockets CoresPerSocket=$((64 / sockets)) ThreadsPerCore=1" \
    'RealMemory=491520 Gres=gpu:mi250:8 CpuSpecList=0,8,16,24,32,40,48,56 State=UNKNOWN' >>"$1/slurm.conf"
  echo 'NodeName=nid005124 Name=gpu Type=mi250 File=/run/lab/gpu[0-7] Flags=amd_gpu_env' >"$1/gres.conf"
  cat >"$1/cgroup.conf" <<'C'
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=yes
ConstrainDevices=yes
C
}

write_boot() {
  printf 'NODE_OUT=%q\nNODE_VISIBLE=%q\n' "$OUT" "${NODE_VISIBLE:-}" >"$1"
  cat >>"$1" <<'B'
export NODE_OUT NODE_VISIBLE SLURM_CONF=/run/lab/slurm.conf HOME=/run/home LC_ALL=C
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
up() { cut -d' ' -f1 /proc/uptime; }
stop() { echo "NODE BAD $*"; tail -n 5 /run/lab/*.log; exit; }

ip link set lo up; ip addr add 10.9.9.1/24 dev lo
printf '127.0.0.1 localhost\n10.9.9.1 nid005124\n' >/etc/hosts
mount -t tmpfs c /sys/fs/cgroup
for c in cpuset memory freezer devices cpu,cpuacct; do
  mkdir -p /sys/fs/cgroup/$c; mount -t cgroup -o $c c /sys/fs/cgroup/$c
done
mkdir -p /run/lab/ctl /run/lab/spool "$HOME"; cd "$HOME"
# A major number of their own each: ConstrainDevices works by device number, and must not take /dev/null away.
for i in 0 1 2 3 4 5 6 7; do mknod /run/lab/gpu$i c 240 $i; done
head -c 128 /dev/urandom >/run/lab/munge.key; chmod 400 /run/lab/munge.key
munged --force --key-file=/run/lab/munge.key --socket=/run/lab/munge --pid-file=/run/lab/munge.pid \
  --log-file=/run/lab/munge.log --seed-file=/run/lab/munge.seed 2>/dev/null
slurmctld -f $SLURM_CONF; slurmd -f $SLURM_CONF 2>/dev/null
for i in $(seq 200); do [ "$(sinfo -h -t idle -o %D -p standard-g 2>/dev/null)" = 1 ] && break; sleep 0.3; done
sinfo -h -t idle | grep -q . || stop "Slurm did not come up in the guest."
IFS=:; for d in $NODE_VISIBLE; do [ -e "$d" ] || stop "$d cannot be seen in the guest."; done; unset IFS
echo "NODE UP $(up)"; bash /run/lab/script.sh; code=$?; cp /run/lab/*.log "$NODE_OUT"; echo "NODE DONE $code $(up)"
B
}

# What a killed run left behind.
sweep() {
  local d
  for d in "$W"/boot.*; do
    if [ -d "$d" ] && [ ! -d "/proc/${d##*.}" ]; then rm -rf "$d"; fi
  done
}

write_initrd() {
  mkdir -p "$RUN" "$OUT"
  cp -r "$W/base" "$RUN/ir"
  mkdir "$RUN/ir/lab"
  write_init "$RUN/ir/init"
  write_slurm "$RUN/ir/lab"
  write_boot "$RUN/ir/lab/boot.sh"
  cp "$SCRIPT" "$RUN/ir/lab/script.sh"
  (cd "$RUN/ir" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$RUN/ir.gz"
}

# ---- the machine ----------------------------------------------------------------------------------------------

# 8 dies of 8 cores, two dies to a NUMA node.
topology() {
  local n d c
  for n in 0 1 2 3; do echo "-object memory-backend-ram,id=m$n,size=${NODE_MIB:-1024}M -numa node,nodeid=$n,memdev=m$n"; done
  for d in $(seq 0 7); do
    for c in $(seq 0 7); do echo "-numa cpu,node-id=$((d / 2)),socket-id=0,die-id=$d,core-id=$c,thread-id=0"; done
  done
}

# The processor calls itself Intel's, because the emulation knows only Intel's way to tell the L3 groups: as AMD's,
# the kernel takes a NUMA node for one L3.
boot() {
  timeout --foreground "${NODE_S:-300}" qemu-system-x86_64 -M q35 -accel tcg,thread=single -cpu max,vendor=GenuineIntel \
    -smp 64,sockets=1,dies=8,cores=8,threads=1 -m $((4 * ${NODE_MIB:-1024}))M $(topology) \
    -nodefaults -nographic -serial stdio -no-reboot -kernel "$W/k/boot/vmlinuz-$(cat "$W/k/version")" \
    -initrd "$RUN/ir.gz" -append "console=ttyS0 quiet panic=1 nokaslr mitigations=off" \
    -virtfs local,path=/,mount_tag=host,security_model=passthrough,readonly=on,multidevs=remap \
    -virtfs local,path="$OUT",mount_tag=out,security_model=none </dev/null 2>&1 | tr -d '\r' >"$RUN/console" || true
}

report() {
  sed -n '/NODE UP/,/NODE DONE/p' "$RUN/console" | sed 's/.*NODE UP/NODE UP/'
  local code
  code=$(sed -n 's/.*NODE DONE \([0-9]*\) .*/\1/p' "$RUN/console" | tail -1)
  if [ -z "$code" ]; then
    tail -n 30 "$RUN/console" >&2
    echo "node.sh: The guest did not come to the end of the script (limit ${NODE_S:-300} s); its last lines are above." >&2
    code=3
  fi
  rm -rf "$RUN"
  exit "$code"
}

check
trap 'rm -rf "$RUN"' EXIT
prepare
sweep
write_initrd
boot
report
