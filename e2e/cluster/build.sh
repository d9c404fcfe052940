#!/bin/sh
# Builds Kubernetes' programs and Helm once for each content of this folder and prints the folder that holds them.
set -eu
cd "$(dirname "$0")"
cache=${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}
content=$(cat ./*.go go.mod go.sum build.sh | sha256sum | cut -c1-12)
folder=$cache/cluster-$content
if [ ! -e "$folder/helm" ]; then
    echo "building Kubernetes and Helm (some minutes, once)" >&2
    version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' go.mod)
    minor=$(echo "$version" | cut -d. -f2)
    mkdir -p "$cache"
    part=$(mktemp -d "$cache/cluster-part-XXXXXX")
    info=k8s.io/component-base/version
    # Without a version of its own kubectl thinks that the server is too new.
    CGO_ENABLED=0 go build -trimpath -o "$part/kube-apiserver" \
        -ldflags "-s -w -X $info.gitVersion=$version -X $info.gitMajor=1 -X $info.gitMinor=$minor" .
    for name in etcd kube-controller-manager kube-scheduler kubelet kube-proxy kubectl helm kstatus; do
        ln -s kube-apiserver "$part/$name"
    done
    # Two runs may build at once; the second finds the first one's.
    mv -T "$part" "$folder" 2>/dev/null || { [ -e "$folder/helm" ] && rm -rf "$part"; }
fi
echo "$folder"
