# The first process of a node, in its network namespace and in a mount namespace of its own: gives the node directories of its
# own in place of the machine's, says "ready", and holds the namespaces until it is killed.
# What is mounted here is seen by nobody else, and goes with the last process of the node.
set -eu
disk=$1
# Own peer groups: a container's mount that is to be shared is shared within the node.
mount --make-rshared /
mkdir -p "$disk/lib" "$disk/log"
mount --bind "$disk/lib" /var/lib
mount --bind "$disk/log" /var/log
mount -t tmpfs -o mode=755 tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/netns /run/lock /var/lib/cni/net.d
echo 1 > /proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity
