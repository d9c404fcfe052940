#!/bin/sh
# Brings a bed of its own up, lets all stories run in it, and ends it, also after Ctrl-C. Arguments go to the stories: a name chooses some.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}/target}
export CARGO_TARGET_DIR="$target"
dev=$(mktemp -d)
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" != 0 ] && run=$(cat "$dev/run" 2> /dev/null); then
        for log in "$run"/log/controller.log "$run"/log/agent-*.log "$run"/log/keeper.log; do
            echo "--- ${log##*/}"
            tail -n 40 "$log"
        done
        echo "--- what failed"
        awk '/^failures:/ { told = 1 } told' "$dev/told" | cut -c 1-2000
    fi
    "$target/debug/bed" down --dir "$dev"
    rm -rf "$dev"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
cargo build --quiet --workspace --bins
cargo test --quiet --package e2e --test stories --no-run
"$target/debug/bed" up --dir "$dev" --cluster "$(e2e/cluster/build.sh)" --guest "$(e2e/guest/build.sh)"
VIRTFLEET_RUN=$(cat "$dev/run")
# What a failed story says is in its words, not in its stack.
export VIRTFLEET_RUN RUST_BACKTRACE=0
# Two emulated guests at a time are what two processors bear.
mkfifo "$dev/tell"
tee "$dev/told" < "$dev/tell" &
cargo test --quiet --package e2e --test stories -- --test-threads=3 "$@" > "$dev/tell" 2>&1
wait "$!"
sort -rn "$VIRTFLEET_RUN/log/stories"
