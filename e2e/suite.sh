#!/bin/sh
# Brings a bed of its own up, lets a suite run in it, and ends it, also after Ctrl-C. `suite.sh stories` is what users do, `suite.sh install`
# what administrators do, on a bed whose first host is a node of the cluster. More arguments go to the suite: a name chooses some.
set -eu
suite=$1
shift
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-${VIRTFLEET_CACHE:-$HOME/.cache/virtfleet}/target}
export CARGO_TARGET_DIR="$target"
dev=$(mktemp -d)
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" != 0 ] && run=$(cat "$dev/run" 2> /dev/null); then
        for log in "$run"/log/controller.log "$run"/log/agent-*.log "$run"/log/keeper.log "$run"/node-a/log/pods/*/*/*.log; do
            [ -e "$log" ] || continue
            echo "--- ${log#"$run"/}"
            tail -n 40 "$log"
        done
        echo "--- what failed"
        awk '/^failures:/ { told = 1 } told' "$dev/told" 2> /dev/null | cut -c 1-2000
    fi
    "$target/debug/bed" down --dir "$dev"
    rm -rf "$dev"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
cargo build --quiet --workspace --bins
cargo test --quiet --package e2e --test "$suite" --no-run
case $suite in
# Stories that need what could not be built are left out. SHARE=2/3 is every third of the others, beginning with the second.
stories)
    set -- --include-ignored "$@"
    [ -n "${VIRTFLEET_FLUX:-}" ] || set -- --skip=flux:: "$@"
    [ -n "${VIRTFLEET_PREVIOUS:-}" ] || set -- --skip=versions:: "$@"
    if [ -n "${SHARE:-}" ]; then
        all=$(cargo test --quiet --package e2e --test stories -- --list --format terse "$@" | sed -n 's/: test$//p')
        # shellcheck disable=SC2046
        set -- --include-ignored --exact $(echo "$all" | awk -v of="${SHARE#*/}" -v my="${SHARE%/*}" 'NR % of == my % of')
    fi
    # Two emulated guests at a time are what two processors bear.
    set -- --test-threads=3 "$@"
    ;;
install)
    node=$(e2e/images/build.sh "$target/debug")
    set -- --test-threads=1 "$@"
    ;;
esac
"$target/debug/bed" up --dir "$dev" --cluster "$(e2e/cluster/build.sh)" --guest "$(e2e/guest/build.sh)" ${node:+--node "$node"}
VIRTFLEET_RUN=$(cat "$dev/run")
# What a failed story says is in its words, not in its stack.
export VIRTFLEET_RUN RUST_BACKTRACE=0
mkfifo "$dev/tell"
tee "$dev/told" < "$dev/tell" &
cargo test --quiet --package e2e --test "$suite" -- "$@" > "$dev/tell" 2>&1
wait "$!"
sort -rn "$VIRTFLEET_RUN/log/stories"
if [ "$suite" = install ]; then cat "$VIRTFLEET_RUN/log/install" "$node/sizes"; fi
