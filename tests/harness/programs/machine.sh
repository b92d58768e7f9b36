# Becomes the systemd of a machine of its own, as process 1 of new namespaces: machine.sh ETC PROGRAM.
#
# The machine has ETC as its /etc, PROGRAM as /usr/local/bin/outrigger, the units in /etc/units and no others, and empty
# directories for what changes. Its cgroups are below the one in which it was started.
set -e
mount --make-rprivate /
umount -lR /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount --bind "$1" /etc
for changing in /run /var/lib /usr/local/bin; do mount -t tmpfs -o mode=0755 none "$changing"; done
touch /usr/local/bin/outrigger
mount --bind "$2" /usr/local/bin/outrigger
exec env -i PATH="$PATH" container=outrigger-test SYSTEMD_UNIT_PATH=/etc/units \
    /lib/systemd/systemd --system --unit=machine.target --log-target=console --show-status=no
