#!/bin/sh
# Installs what is missing, builds everything and runs every test; ends with ctest's summary and its exit code.
#   sh tests/run.sh [--preset release|debug|asan|tsan] [--store private|own|URL] [-- arguments of ctest]
#   sh tests/run.sh -- -L unit              one kind: unit, sim, integration, interface, tidy, bench, chaos
#   sh tests/run.sh -- -R gateway -VV       by name, with output
#   sh tests/run.sh --store own             the daemons use one PostgreSQL server, started for the run, instead of private ones
#   sh tests/run.sh --store postgresql://…  or one that is there, by the URL of a superuser
set -eu
umask 022
cd -- "$(dirname -- "$0")/.."

preset=release
store=${BULKHEAD_TEST_STORE_URL:-private}
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
    --store)
      [ $# -ge 2 ] || { printf 'tests/run.sh: --store wants private, own or a URL\n' >&2; exit 2; }
      store=$2
      shift 2
      ;;
    --store=*)
      store=${1#--store=}
      shift
      ;;
    --)
      shift
      break
      ;;
    *)
      printf 'tests/run.sh: unknown option %s; usage: sh tests/run.sh [--preset NAME] [--store STORE] [-- arguments of ctest]\n' "$1" >&2
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
case $store in
  private | own | postgresql://* | postgres://*) ;;
  *)
    printf 'tests/run.sh: --store wants private, own or a URL like postgresql://USER:PASSWORD@HOST:PORT/DATABASE, not %s\n' "$store" >&2
    exit 2
    ;;
esac

sh deploy/packages.sh
beside=tests/integration/own_server.py
case $store in
  *://*) /usr/bin/python3 -B "$beside" "$store" true ;; # a server that can't be used is told now and not after the build
esac

# ccache wants a place to write; a user without a home builds without it.
if [ -z "${CCACHE_DIR:-}" ] && [ ! -w "${HOME:-/nonexistent}" ]; then
  export CCACHE_DISABLE=1
fi

cmake --preset "$preset" -DBULKHEAD_TESTS=ON
ninja -C "$folder" -j "$(nproc)"
# exec: ctest's summary is the last thing printed, and its exit code ours. Above it stands which tests were skipped: tests/skips.py
# writes that past ctest, to descriptor 9.
export BULKHEAD_REPORT_FD=9
unset BULKHEAD_TEST_STORE_URL
# They wait more than they work: three at a time keep two cores busy.
set -- ctest --test-dir "$folder" --output-on-failure --no-tests=error -j 3 "$@"
[ "$store" = private ] || set -- /usr/bin/python3 -B "$beside" "$store" "$@"
exec "$@" 9>&1
