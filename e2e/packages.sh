#!/bin/sh
# Installs the Debian packages that building and testing need. Says which and asks, unless YES=1 or there is no terminal.
set -eu

# libvirt below 10 can make external snapshots but not revert them: these come from backports where the release is older.
libvirt="libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients libvirt-dev qemu-system-x86 qemu-utils seabios"
others="gcc make pkg-config git iproute2 util-linux dnsmasq-base iptables libxml2-utils
    lua5.1 mtools syslinux syslinux-common fdisk cpio kmod busybox-static
    systemd"
# `packages.sh node`: also what builds images and runs them on the bed's node. Docker brings a containerd that Debian's would push out.
if [ "${1:-}" = node ]; then
    others="$others mmdebstrap buildah containernetworking-plugins nftables procps"
    for program in containerd runc; do command -v "$program" > /dev/null || others="$others $program"; done
fi

missing() { for name; do dpkg -s "$name" 2>/dev/null | grep -q '^Status: install ok installed' || printf '%s ' "$name"; done; }
old() { dpkg --compare-versions "$(dpkg-query -W -f '${Version}' libvirt-daemon-system 2>/dev/null || echo 0)" lt 10; }

wanted=$(missing $libvirt $others)
[ -n "$wanted" ] || old || exit 0

echo "Virtfleet's tests need these Debian packages: ${wanted:-newer $libvirt}"
if [ -t 0 ] && [ "${YES:-}" != 1 ]; then
    printf 'Install them? [y/N] '
    read -r answer
    case $answer in y | Y | yes) ;; *) echo "nothing installed"; exit 1 ;; esac
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
. /etc/os-release
release=
candidate=$(apt-cache policy libvirt-daemon-system | awk '/Candidate:/ { print $2 }')
if dpkg --compare-versions "$candidate" lt 10; then
    suite=$VERSION_CODENAME-backports
    if ! apt-get indextargets --format '$(RELEASE)' | grep -qx "$suite"; then
        # The mirror and its key as configured for the release itself.
        mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | awk -v name="$VERSION_CODENAME" '$1 == name { print $2; exit }')
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
            "$mirror" "$suite" > /etc/apt/sources.list.d/virtfleet-backports.sources
        apt-get update -q
    fi
    release="-t $suite"
fi
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $release $libvirt
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $others
