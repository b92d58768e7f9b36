#!/bin/busybox sh
# The guest's first process: makes what a started machine has, runs /steps.sh, and switches the machine off.
# The kernel's own messages go to the first serial line, everything here to the second.
/bin/busybox mount -t devtmpfs dev /dev
exec >/dev/ttyS1 2>&1 </dev/ttyS1
/bin/busybox --install -s /applets
export PATH=/outrigger/bin:/bin:/applets HOME=/root TMPDIR=/tmp TERM=vt100
export OUTRIGGER_BIN_DIR=/outrigger/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
# A router answers five times for routes that refuse, and then once a second. Older kernels double the pauses between
# SYNs from the first one on, so that a test would wait for half a minute. One value for all namespaces.
echo 0 > /proc/sys/net/ipv4/route/error_cost
# As many as a service manager gives; the kernel alone gives 1024, and a crowd of connections needs more.
ulimit -n 1048576
for module in /modules/*; do
    insmod "$module" || echo "outrigger-vm: $module was not loaded"
done
ip link set lo up

# step NAME SECONDS COMMAND...
step() {
    name=$1
    seconds=$2
    shift 2
    echo "outrigger-vm: $name begins"
    timeout -s KILL "$seconds" "$@"
    status=$?
    # What a step out of time has started would take the time of the next. The first process is spared.
    [ $status -ne 137 ] || kill -KILL -1
    echo "outrigger-vm: $name ended with $status"
}

. /steps.sh
echo "outrigger-vm: done"
sync
poweroff -f
