#!/bin/sh
# Builds the container images of deploy/Dockerfile around binaries that are built already, and prints the folder that holds them as archives:
# agent.tar, controller.tar, and pause.tar for the bed's node. Takes the folder of the binaries. Needs no registry: the bases are
# made of Debian packages (base.sh).
set -eu
binaries=$(readlink -f "$1")
cd "$(dirname "$0")/../.."
cache=${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}
version=$(awk '$1 == "appVersion:" { print $2 }' charts/virtfleet/Chart.yaml)
# Unpacked, in MiB: Debian, what apt adds to it, and our binary of an unoptimized build without its symbols.
controller_limit=160
agent_limit=260

mkdir -p "$cache"
part=$(mktemp -d "$cache/images-part-XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT TERM
mkdir "$part/binaries" "$part/made"

for name in agent controller; do
    strip -o "$part/binaries/virtfleet-$name" "$binaries/virtfleet-$name"
done
controller_base=$(e2e/images/base.sh)
agent_base=$(e2e/images/base.sh ca-certificates,libvirt0,qemu-utils)
content=$( (cat "$part"/binaries/* deploy/Dockerfile e2e/images/*.sh; echo "$controller_base $agent_base") | sha256sum | cut -c1-12)
folder=$cache/images-$content
if [ -e "$folder/sizes" ]; then
    # Another run that builds others does not take it for one of other days.
    touch "$folder"
    cat "$folder/sizes" >&2
    echo "$folder"
    exit
fi

builder() { buildah --root "$part/store" --runroot "$part/run" --storage-driver vfs "$@"; }

# An image that holds one archive or file: its name, the file, where it goes, what it runs.
plain() {
    container=$(builder from scratch)
    builder add --quiet "$container" "$2" "$3" > /dev/null
    builder config ${4:+--entrypoint "$4"} "$container"
    builder commit --quiet --rm "$container" "$1" > /dev/null
}

archive() { builder push --quiet "$1" "oci-archive:$part/made/$2.tar:$1"; }

for name in controller agent; do
    eval "base=\$${name}_base limit=\$${name}_limit"
    echo "building the image of the $name" >&2
    plain "localhost/virtfleet-base-$name:bed" "$base" /
    builder build --quiet --isolation chroot --file deploy/Dockerfile --target "$name" \
        --build-arg BASE="localhost/virtfleet-base-$name:bed" --build-arg VERSION="$version" \
        --build-context binaries="$part/binaries" \
        --tag "localhost/virtfleet-$name:$version" "$part/binaries" > /dev/null
    archive "localhost/virtfleet-$name:$version" "$name"
    container=$(builder from "localhost/virtfleet-$name:$version")
    unpacked=$(du -sm "$(builder mount "$container")" | cut -f1)
    packed=$(du -m "$part/made/$name.tar" | cut -f1)
    echo "image of the $name: $unpacked MiB unpacked (at most $limit), $packed MiB packed" | tee -a "$part/made/sizes" >&2
    [ "$unpacked" -le "$limit" ]
done
plain localhost/virtfleet-pause:bed /bin/busybox /busybox '["/busybox", "sleep", "inf"]'
archive localhost/virtfleet-pause:bed pause
chmod 755 "$part/made"
# Each build of the binaries makes its own; those of other days are nobody's.
find "$cache" -maxdepth 1 -name 'images-*' -mtime +0 -exec rm -rf {} +
mv -T "$part/made" "$folder" 2> /dev/null || [ -e "$folder/sizes" ]
echo "$folder"
