#!/bin/sh
# Brings a bed of its own up, measures in it, and ends it, also after Ctrl-C. Arguments go to the bench: what to measure. For `counts`, those that
# gate, any build will do; what is timed is built as users build it.
set -eu
cd "$(dirname "$0")/.."
# What an installation costs is told by the story that installs.
case "$*" in
    "" | install)
        e2e/packages.sh node
        e2e/suite.sh install first_guest
        [ -z "$*" ] || exit 0
        ;;
esac
target=${CARGO_TARGET_DIR:-${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}/target}
dev=$(mktemp -d)
case "$*" in
    counts) build=debug flag= ;;
    *) build=release flag=--release ;;
esac
finish() {
    status=$?
    trap - EXIT INT TERM
    "$target/$build/bed" down --dir "$dev"
    rm -rf "$dev"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
cargo build --quiet $flag --workspace --bins
"$target/$build/bed" up --dir "$dev" --cluster "$(e2e/cluster/build.sh)" --guest "$(e2e/guest/build.sh)"
VIRTFLEET_RUN=$(cat "$dev/run")
# What a failed measurement says is in its words, not in its stack.
export VIRTFLEET_RUN RUST_BACKTRACE=0
"$target/$build/bench" "$@"
