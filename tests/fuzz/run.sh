#!/bin/sh
# Installs clang, and lets the fuzz targets run under libFuzzer with the address and undefined-behaviour sanitizers.
#   sh tests/fuzz/run.sh                         each target for 600 s
#   sh tests/fuzz/run.sh --seconds 60 http1_fuzz
# The corpus that grows stays in build-fuzz/corpus/<target>; what breaks a target is build-fuzz/<target>-crash-…, and
# `build/tests/<target> FILE` replays it.
set -eu
cd -- "$(dirname -- "$0")/../.."
seconds=600
targets=
while [ $# -gt 0 ]; do
  case $1 in
    --seconds)
      [ $# -ge 2 ] || { printf 'tests/fuzz/run.sh: --seconds wants a number\n' >&2; exit 2; }
      seconds=$2
      shift 2
      ;;
    -*)
      printf 'tests/fuzz/run.sh: unknown option %s; usage: sh tests/fuzz/run.sh [--seconds N] [TARGET…]\n' "$1" >&2
      exit 2
      ;;
    *)
      targets="$targets $1"
      shift
      ;;
  esac
done
[ -n "$targets" ] || targets='http1_fuzz jwt_fuzz link_gateway_fuzz link_module_fuzz call_response_fuzz
  manifest_fuzz semver_fuzz cron_fuzz config_values_fuzz sql_script_fuzz'

sh deploy/packages.sh --fuzz
cmake --preset fuzz
# shellcheck disable=SC2086
ninja -C build-fuzz -j "$(nproc)" $targets
failed=0
for target in $targets; do
  mkdir -p "build-fuzz/corpus/$target"
  printf '== %s, %s s\n' "$target" "$seconds"
  build-fuzz/tests/"$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build-fuzz/$target-" "build-fuzz/corpus/$target" 2>"build-fuzz/$target.log" || failed=1
  grep -E 'stat::number_of_executed_units|stat::average_exec_per_sec|cov:|ERROR|SUMMARY' "build-fuzz/$target.log" | tail -n 4
done
exit "$failed"
