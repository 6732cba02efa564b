#!/bin/sh
# Runs the unpacked root of the image without a container engine, as a cluster would: read-only, as the
# image's user, without capabilities, in namespaces of its own. Starts the server, checks its health,
# publishes an event, listens to it, and stops the server.
#
#   umoci unpack --image oci:fastsse bundle && sudo deploy/try_image.sh bundle/rootfs
#
# Needs Linux, root, util-linux and iproute2.
set -eu

if [ "${1:-}" != --inside ]; then
    [ -x "${1:?the folder of the unpacked root}/opt/fastsse/bin/fastsse" ]
    exec unshare --mount --pid --net --ipc --uts --fork --kill-child "$0" --inside "$(realpath "$1")"
fi

root=$2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777,size=16m tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
ip link set lo up

# Replaces the subshell that it is called in, so that its process is the program itself.
inside() {
    exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin FASTSSE_HOST=0.0.0.0 FASTSSE_WORKERS=2 \
        FASTSSE_LOG_FORMAT=json FASTSSE_PUBLISH_TOKEN=secret FASTSSE_URL=http://127.0.0.1:8080 FASTSSE_TOKEN=secret \
        setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set -all --inh-caps -all \
        --no-new-privs sh -c "cd /var/lib/fastsse; ulimit -n 4096; exec $*"
}

(inside touch /var/lib/fastsse/a-file) 2>/dev/null && { echo 'the root is writable'; exit 1; }
(inside /opt/fastsse/bin/fastsse serve) &
server=$!
healthy=1
for _ in $(seq 50); do
    (inside /opt/fastsse/bin/health 2>/dev/null) && healthy=0 && break
    sleep 0.2
done
[ $healthy = 0 ] || { echo 'it was not healthy within 10 s'; exit 1; }
(inside /opt/fastsse/bin/fastsse publish news hello)
(inside /opt/fastsse/bin/fastsse listen news --from earliest --count 1) | grep -q hello
kill -TERM $server
wait $server
echo "the image serves"
