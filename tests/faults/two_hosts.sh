# Two hosts on one machine: this network namespace and a second one, with a cable between them.
# bash two_hosts.sh PYTHON WORDS...: runs `headwise WORDS` on both, started by torchrun.
# Must be started within a new namespace (unshare --net); exits with 77 where a second is refused.
python=$1
shift
first=10.77.0.1 second=10.77.0.2
ip link set lo up || exit 77
unshare --net sleep 600 &
other=$!
trap 'kill $other' EXIT
for _ in $(seq 100); do
    test "$(readlink /proc/self/ns/net)" != "$(readlink /proc/$other/ns/net)" && break
    sleep 0.05
done
on_second() { nsenter --target $other --net "$@"; }
ip link add cable0 type veth peer name cable1 netns $other || exit 77
ip address add $first/24 dev cable0 && ip link set cable0 up || exit 77
on_second ip link set lo up
on_second ip address add $second/24 dev cable1 && on_second ip link set cable1 up || exit 77

launch() { # node, its interface, its address, then words
    GLOO_SOCKET_IFNAME=$2 "$python" -m torch.distributed.run --nnodes 2 --nproc-per-node 1 \
        --node-rank "$1" --master-addr $first --master-port 29577 --local-addr "$3" \
        -m headwise.pipelines.engine -- "${@:4}"
}
export python first
export -f launch
on_second bash -c 'launch "$@"' launch 1 cable1 $second "$@" &
there=$!
launch 0 cable0 $first "$@"
here=$?
wait $there && exit $here
