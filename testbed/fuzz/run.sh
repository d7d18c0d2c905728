#!/bin/bash
# Searches for inputs that break a promise, guided by what they reach: FUZZ_SECONDS for each target (default 60), or only for
# those that are named. What it finds is put into testbed/fuzz/regressions, where every test run tries it again.
# With FUZZ_KEEP=1 the corpus becomes a small one that reaches every edge that was reached.
set -euo pipefail
cd "$(dirname "$0")/../.."
fuzz=testbed/fuzz
seconds=${FUZZ_SECONDS:-60}
built=${CARGO_TARGET_DIR:-target}/guided
export CARGO_TARGET_DIR=$built

# What libFuzzer wants of the compiler, on the stable toolchain: counters of edges, and the values that are compared.
coverage=(-Ctarget-cpu=x86-64-v3 -Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
host=$(rustc -vV | sed -n 's/^host: //p')
CXX=clang++ RUSTFLAGS="${coverage[*]}" \
    cargo build --package testbed --features fuzz --example fuzz --target "$host"

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(ls $fuzz/corpus)
failed=()
for target in "${targets[@]}"; do
    export FUZZ_TARGET=$target
    found=$built/found/$target
    mkdir -p "$found" "$fuzz/regressions/$target"
    words=$fuzz/words/$target.txt
    common=(-max_len=4096 -timeout=20 -rss_limit_mb=4096 -verbosity=0 -artifact_prefix="$fuzz/regressions/$target/")
    [ -e "$words" ] && common+=(-dict="$words")
    echo "fuzz: $target for $seconds s"
    "$built/$host/debug/examples/fuzz" "${common[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        "$found" "$fuzz/corpus/$target" || failed+=("$target")
    if [ "${FUZZ_KEEP:-}" = 1 ]; then
        # Those with a name are written by people, and stay.
        find "$fuzz/corpus/$target" -type f -regextype egrep -regex '.*/[0-9a-f]{40}' -exec mv --target-directory="$found" {} +
        "$built/$host/debug/examples/fuzz" "${common[@]}" -use_counters=0 -set_cover_merge=1 "$fuzz/corpus/$target" "$found"
    fi
    rmdir --ignore-fail-on-non-empty "$fuzz/regressions/$target" "$fuzz/regressions"
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: ${failed[*]} broke; see $fuzz/regressions" >&2; exit 1; }
