#!/bin/sh
# All stories, dealt out to beds that know nothing of each other: they mostly wait, and one that needs its bed for itself makes only the
# others of that bed wait. What a bed told is shown when it is over, of those that failed last.
set -eu
cd "$(dirname "$0")/.."
beds=${BEDS:-3}
told=$(mktemp -d)
running=
finish() {
    status=$?
    trap - EXIT INT TERM
    for bed in $running; do kill -s TERM -- "-$bed" || true; done
    wait
    rm -rf "$told"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
cargo build --quiet --workspace --bins
cargo test --quiet --package e2e --test stories --no-run
# Once, and not by each bed.
e2e/cluster/build.sh > /dev/null
e2e/guest/build.sh > /dev/null
echo "stories on $beds beds"
for bed in $(seq "$beds"); do
    # In a session of its own, so that all of it can be ended.
    SHARE="$bed/$beds" setsid e2e/suite.sh stories > "$told/$bed" 2>&1 &
    running="$running $!"
done
failed=
bed=0
for job in $running; do
    bed=$((bed + 1))
    if wait "$job"; then cat "$told/$bed"; else failed="$failed $bed"; fi
done
running=
for bed in $failed; do cat "$told/$bed"; done
[ -z "$failed" ]
