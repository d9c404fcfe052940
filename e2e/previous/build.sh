#!/bin/sh
# Builds agent and controller of the version before this one, once, from this repository's own history, and prints the folder that holds them.
set -eu
# That version's last commit: it has snapshots, but neither tokens that renew themselves nor Secrets for imports. A release moves it on.
commit=4df22ae8acd4
cd "$(dirname "$0")/../.."
cache=${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}
folder=$cache/previous-$commit
if [ ! -e "$folder" ]; then
    if ! git cat-file -e "$commit^{commit}" 2> /dev/null; then
        echo "commit $commit is not in this clone; where it is a shallow one: git fetch --unshallow" >&2
        exit 1
    fi
    echo "building the version before this one (half a minute, once)" >&2
    mkdir -p "$cache"
    part=$(mktemp -d "$cache/previous-part-XXXXXX")
    trap 'rm -rf "$part"' EXIT
    trap 'exit 130' INT TERM
    mkdir "$part/tree" "$part/bin"
    git archive "$commit" | tar -x -C "$part/tree"
    # What both versions depend on is built once, in the folder of this one. Crates of one name and number would be taken for each other there.
    sed -i "/^\[workspace.package\]/,/^\$/s/^version = .*/version = \"0.0.0-commit-$commit\"/" "$part/tree/Cargo.toml"
    (
        cd "$part/tree"
        export CARGO_BUILD_BUILD_DIR="${CARGO_TARGET_DIR:-$cache/target}" CARGO_TARGET_DIR="$part/out" CARGO_INCREMENTAL=0
        cargo build --quiet --workspace --bin virtfleet-agent --bin virtfleet-controller >&2
    )
    for name in virtfleet-agent virtfleet-controller; do
        "$part/out/debug/$name" --version | grep -qF "$commit"
        cp "$part/out/debug/$name" "$part/bin"
    done
    # Two runs may build at once; the second finds the first one's.
    mv -T "$part/bin" "$folder" 2> /dev/null || [ -e "$folder" ]
fi
echo "$folder"
