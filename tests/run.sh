#!/bin/sh
# Installs what is missing, builds everything and runs every test; ends with ctest's summary and its exit code.
#   sh tests/run.sh [--preset release|debug|asan|tsan] [-- arguments of ctest]
#   sh tests/run.sh -- -L unit              one kind: unit, sim, integration, interface, tidy, bench
#   sh tests/run.sh -- -R gateway -VV       by name, with output
set -eu
umask 022
cd -- "$(dirname -- "$0")/.."

preset=release
while [ $# -gt 0 ]; do
  case $1 in
    --preset)
      [ $# -ge 2 ] || { printf 'tests/run.sh: --preset wants a name\n' >&2; exit 2; }
      preset=$2
      shift 2
      ;;
    --preset=*)
      preset=${1#--preset=}
      shift
      ;;
    --)
      shift
      break
      ;;
    *)
      printf 'tests/run.sh: unknown option %s; usage: sh tests/run.sh [--preset NAME] [-- arguments of ctest]\n' "$1" >&2
      exit 2
      ;;
  esac
done
# Each preset builds in a folder of its own, see CMakePresets.json.
case $preset in
  release) folder=build ;;
  debug | asan | tsan) folder=build-$preset ;;
  *)
    printf 'tests/run.sh: no preset is named %s; there are release, debug, asan and tsan\n' "$preset" >&2
    exit 2
    ;;
esac

sh deploy/packages.sh

# ccache wants a place to write; a user without a home builds without it.
if [ -z "${CCACHE_DIR:-}" ] && [ ! -w "${HOME:-/nonexistent}" ]; then
  export CCACHE_DISABLE=1
fi

cmake --preset "$preset" -DBULKHEAD_TESTS=ON
ninja -C "$folder" -j "$(nproc)"
# exec: ctest's summary is the last thing printed, and its exit code ours. Above it stands which tests were skipped: tests/skips.py
# writes that past ctest, to descriptor 9.
export BULKHEAD_REPORT_FD=9
exec ctest --test-dir "$folder" --output-on-failure --no-tests=error -j 2 "$@" 9>&1
