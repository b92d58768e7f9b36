# The first process of a node, in its network namespace and in a mount namespace of its own: gives the node directories of its
# own in place of the machine's, in memory, says "ready", and holds the namespaces until it is killed.
# What is mounted here is seen by nobody else, and goes with the last process of the node.
set -eu
own=$1
# Own peer groups: a container's mount that is to be shared is shared within the node.
mount --make-rshared /
for directory in "$own/run" /var/lib /var/log; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=755 "$0" "$directory"
done
# The one directory of the machine's /run that the node keeps.
mkdir -p "$own/run/netns" "$own/run/lock" "$own/run/outrigger-cluster"
mount --bind /run/outrigger-cluster "$own/run/outrigger-cluster"
mount --rbind "$own/run" /run
mount -t bpf bpf /sys/fs/bpf
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
# The bridge of the pods is made later; its address is good at once, too.
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo ready
exec sleep infinity
