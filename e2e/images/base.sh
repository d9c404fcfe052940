#!/bin/sh
# Makes a root file system of the Debian release that this machine has, with the packages named beside Debian's own, once for each set of
# them, and prints its archive. A binary runs on no older glibc and libvirt than it was linked with.
set -eu
cd "$(dirname "$0")"
cache=${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}
packages=${1:-}
. /etc/os-release
suite=$VERSION_CODENAME
libvirt=$(dpkg-query -W -f '${Version}' libvirt0)
case $libvirt in *~bpo*) suite=$suite-backports ;; esac

content=$( (cat base.sh; echo "$suite $libvirt $packages") | sha256sum | cut -c1-12)
archive=$cache/base-$content.tar
if [ ! -e "$archive" ]; then
    echo "making a base of Debian packages${packages:+ with $packages} (a minute, once)" >&2
    mkdir -p "$cache"
    part=$(mktemp "$cache/base-part-XXXXXX.tar")
    trap 'rm -f "$part"' EXIT
    # Where packages came from is this machine's matter; documentation is nobody's in an image.
    mmdebstrap --quiet --mode=root --variant=apt ${packages:+--include="$packages"} --aptopt="APT::Default-Release \"$suite\"" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='cd "$1" && : > etc/apt/sources.list && rm -rf etc/apt/sources.list.d/* etc/apt/apt.conf.d/99mmdebstrap var/cache/* var/log/*' \
        "$VERSION_CODENAME" "$part" /etc/apt/sources.list.d/*.sources >&2
    mv "$part" "$archive"
fi
echo "$archive"
