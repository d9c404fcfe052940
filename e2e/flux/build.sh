#!/bin/sh
# Builds Flux's source and kustomize controllers once, from their Go modules, and prints the folder that holds them and their CRDs.
set -eu
version=v1.9.6
# The version that they ask for cannot be had everywhere; this one fits them.
artifact=v0.18.0
cache=${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}
folder=$cache/flux-$(cat "$0" | sha256sum | cut -c1-12)
if [ ! -e "$folder" ]; then
    echo "building Flux's controllers (some minutes, once)" >&2
    mkdir -p "$cache"
    part=$(mktemp -d "$cache/flux-part-XXXXXX")
    trap 'chmod -R u+w "$part"; rm -rf "$part"' EXIT
    mkdir "$part/out" "$part/out/crds"
    for name in source-controller kustomize-controller; do
        module=github.com/fluxcd/$name
        dir=$(go mod download -json "$module@$version" | awk -F '"' '$2 == "Dir" { print $4 }')
        cp -r "$dir" "$part/$name"
        chmod -R u+w "$part/$name"
        cp "$part/$name"/config/crd/bases/*.yaml "$part/out/crds"
        (
            cd "$part/$name"
            # A module as it is served has no neighbour to be replaced by.
            go mod edit -dropreplace "$module/api" -require "$module/api@$version" \
                -replace "github.com/fluxcd/pkg/artifact=github.com/fluxcd/pkg/artifact@$artifact"
            CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags "-s -w" -o "$part/out/$name" . >&2
        )
    done
    # Two runs may build at once; the second finds the first one's.
    mv -T "$part/out" "$folder" 2> /dev/null || [ -e "$folder" ]
fi
echo "$folder"
