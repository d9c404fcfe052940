#!/bin/sh
# Boots a root file system with systemd as process 1, as a machine of its own: boot.sh ROOT SHARED FOLDER... Needs new mount, UTS, IPC,
# control group and process namespaces, where this is process 1. Each FOLDER is the one below SHARED.
set -eu
root=$1 shared=$2
shift 2
mount --bind "$root" "$root"
cd "$root"
# What is the kernel's is the real machine's too: it can be read.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    number=${device#*:}
    mknod -m 666 "dev/${device%%:*}" c "${number%:*}" "${number#*:}"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 run run
for folder; do
    mkdir -p "./$folder"
    mount --bind "$shared/$folder" "./$folder"
done
pivot_root . mnt
umount -l mnt
exec env -i container=bed PATH=/usr/sbin:/usr/bin setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time \
    /lib/systemd/systemd --unit=multi-user.target
