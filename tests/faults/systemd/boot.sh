#!/bin/sh
# The first process of a machine of its own: new namespaces, this machine's files under an overlay.
# Usage: boot.sh FOLDER CHECKOUT SITE_PACKAGES PYTHON_PREFIX; its terminal becomes the console.
set -e
folder=$1 root=$1/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev" -o mode=755
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
ln -s pts/ptmx "$root/dev/ptmx"
for device in null zero full random urandom tty; do
    cp -a "/dev/$device" "$root/dev/$device"
done
touch "$root/dev/console"
mount --bind "$(tty)" "$root/dev/console"
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up multicast on
ip route add 224.0.0.0/4 dev lo # LSL finds streams by multicast

# Checkout and packages at places that `ProtectHome` leaves.
home=$root/opt/spikeloop
mkdir -p "$home/bin" "$home/checkout" "$home/site" "$home/python"
mount --bind "$2" "$home/checkout"
mount --bind "$3" "$home/site"
mount --bind "$4" "$home/python"
cat >"$home/bin/spikeloop" <<'SCRIPT'
#!/bin/sh
export PYTHONPATH=/opt/spikeloop/checkout:/opt/spikeloop/site PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH=/opt/spikeloop/python/lib OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
exec /opt/spikeloop/python/bin/python3 -m service.cli "$@"
SCRIPT
chmod 755 "$home/bin/spikeloop"

# What is written there is seen by the test.
mkdir -p "$root/$folder-shared"
mount --bind "$folder-shared" "$root/$folder-shared"

# Only what the test puts there is started; nothing of this machine's own.
units=$root/etc/systemd/system
rm -rf "$units"
mkdir -p "$units" "$root/etc/spikeloop"
cp "$folder-shared"/*.service "$folder-shared"/*.target "$units"
cp "$folder-shared/rig.toml" "$root/etc/spikeloop"
for unit in "$root"/lib/systemd/system/sysinit.target.wants/* \
    "$root"/lib/systemd/system/sockets.target.wants/systemd-udevd* systemd-tmpfiles-clean.timer; do
    case $unit in
    *journald*) ;;
    *) ln -sf /dev/null "$units/$(basename "$unit")" ;;
    esac
done

cd "$root"
mkdir -p old
pivot_root . old
umount -l old
exec </dev/console >/dev/console 2>&1
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --unit=rig.target
