#!/bin/sh
# Packs what a host outside the cluster needs, to be unpacked at its root: pack.sh BINARY TARBALL. The same files make the same bytes.
# Unpacked again, it changes no settings.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM
install -D -m 0755 "$1" "$root/usr/local/bin/virtfleet-agent"
install -D -m 0644 "$here/virtfleet-agent.service" "$root/etc/systemd/system/virtfleet-agent.service"
install -d -m 0700 "$root/etc/virtfleet"
install -m 0600 "$here/agent.env.example" "$root/etc/virtfleet"
tar --create --gzip --file "$2" --directory "$root" --sort=name --owner=0 --group=0 --mtime=@0 \
    etc/systemd/system/virtfleet-agent.service etc/virtfleet usr/local/bin/virtfleet-agent
