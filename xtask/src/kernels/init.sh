#!/bin/busybox sh
# The first process of the small machine: mounts what a Linux system has, runs every suite, says how each ended,
# and turns the machine off. What it says is read by machine.rs.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*.ko; do
    insmod "$module" || echo "guard-machine: failed: $module cannot be loaded"
done
ip link set lo up || echo "guard-machine: failed: lo stays down"

# A suite that cannot run fails; every deadline of the lab is ten times as long.
export CI=true GUARD_TEST_PATIENCE=10 GUARD_TEST_TRAMPOLINES=1 GUARD_AGENT_BIN=/usr/sbin/guard-agent
echo "guard-machine: kernel $(uname -r)"
cd /tmp
guard-agent doctor || echo "guard-machine: failed: guard-agent doctor finds something missing"
for suite in /suites/*; do
    "$suite" --test-threads=1 2>&1
    echo "guard-machine: suite ${suite##*/} $?"
done
echo "guard-machine: end"
poweroff -f
