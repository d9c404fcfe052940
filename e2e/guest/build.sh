#!/bin/sh
# Builds the test guest of Debian packages, once for each content of this folder and version of the packages, and prints the folder that
# holds it: guest.qcow2 (boots from BIOS), vmlinuz, initrd.gz. Needs neither mounts nor loop devices.
set -eu
cd "$(dirname "$0")"
cache=${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}

latest() { apt-cache depends linux-image-cloud-amd64 2> /dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'; }
kernel=$(latest)
[ -n "$kernel" ] || { apt-get update -q >&2; kernel=$(latest); }
versions=$(apt-cache policy "$kernel" qemu-guest-agent | awk '/^[a-z]/ || /Candidate:/')
content=$( (cat init build.sh; echo "$versions") | sha256sum | cut -c1-12)
folder=$cache/guest-$content
if [ -e "$folder/guest.qcow2" ]; then
    echo "$folder"
    exit
fi
echo "building the test guest" >&2
mkdir -p "$cache"
part=$(mktemp -d "$cache/guest-part-XXXXXX")
trap 'rm -rf "$part"' EXIT
work=$part/work
mkdir -p "$work/debs" "$work/root/bin" "$work/root/etc"
(cd "$work/debs" && apt-get download -qq -o APT::Sandbox::User=root "$kernel" qemu-guest-agent >&2)
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/packages"; done
root=$work/root
release=${kernel#linux-image-}

# Programs.
cp /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp init "$root/init"
printf '#!/bin/sh\npoweroff -f\n' > "$root/bin/off"
mkdir -p "$root/sbin"
printf '#!/bin/sh\ncase "$*" in *-r*) reboot -f ;; *) poweroff -f ;; esac\n' > "$root/sbin/shutdown"
printf '#!/bin/sh\n[ "$1" = bound ] && ip addr add "$ip/${mask:-24}" dev "$interface"\n' > "$root/bin/lease"
cp "$work/packages/usr/sbin/qemu-ga" "$root/bin/qemu-ga"
ldd "$root/bin/qemu-ga" | awk '/=> \// { print $3 } /^\t\// { print $1 }' | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
done
printf 'NAME=Virtfleet\nPRETTY_NAME="Virtfleet test guest"\nID=virtfleet\n' > "$root/etc/os-release"
chmod 755 "$root/init" "$root/bin/off" "$root/bin/lease" "$root/sbin/shutdown"

# Modules, with what they depend on.
wanted="virtio_pci virtio_blk virtio_net virtio_console virtio_balloon virtio_scsi virtio_rng button evdev pciehp shpchp"
echo "$wanted" > "$root/modules"
depmod -b "$work/packages" "$release"
for module in $wanted; do
    # One that is built into this kernel has no file, which modprobe takes for a failure.
    modprobe -d "$work/packages" -S "$release" --show-depends "$module" 2> /dev/null || true
done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r file; do
    inside=${file#"$work/packages"}
    mkdir -p "$root/$(dirname "$inside")"
    cp "$file" "$root/$inside"
done
for list in builtin builtin.modinfo order; do
    cp "$work/packages/lib/modules/$release/modules.$list" "$root/lib/modules/$release/"
done
depmod -b "$root" "$release"

cp "$work/packages/boot/vmlinuz-$release" "$part/vmlinuz"
# The same bytes each time, so that checksums of a rebuilt guest are those of the first.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0 | gzip -9n) > "$part/initrd.gz"

# A disk with a FAT partition that syslinux boots from.
disk=$work/disk.raw
truncate -s 64M "$disk"
printf 'label: dos\nlabel-id: 0x76660001\nstart=2048, type=c, bootable\n' | sfdisk -q "$disk"
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" bs=440 count=1 conv=notrunc 2> /dev/null
export MTOOLSRC=/dev/null MTOOLS_SKIP_CHECK=1
mformat -i "$disk@@1048576" -T 129024 -h 255 -s 63 -H 2048 -N 76660002 ::
# An emulated timer that is late on a busy machine is not a broken one.
printf 'SERIAL 0 115200\nDEFAULT l\nPROMPT 0\nLABEL l\nLINUX /vmlinuz\nINITRD /initrd.gz\nAPPEND console=ttyS0 quiet panic=1 no_timer_check\n' > "$work/syslinux.cfg"
mcopy -i "$disk@@1048576" "$part/vmlinuz" "$part/initrd.gz" "$work/syslinux.cfg" ::
syslinux -t 1048576 --install "$disk"
qemu-img convert -O qcow2 "$disk" "$part/guest.qcow2"
rm -rf "$work"
chmod 755 "$part"
mv -T "$part" "$folder" 2> /dev/null || [ -e "$folder/guest.qcow2" ]
echo "$folder"
