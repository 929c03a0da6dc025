#!/bin/sh
# From a checkout to a running supervisor: installs what is missing, builds what is needed to run, and becomes the daemon.
#   sh deploy/quickstart.sh [options of `bulkhead serve`]      e.g. --data /var/lib/bulkhead --listen 127.0.0.1:8080
# Ends in exec, so that Ctrl-C and signals reach the daemon itself.
set -eu
umask 022
cd -- "$(dirname -- "$0")/.."

sh deploy/packages.sh

# ccache wants a place to write; a user without a home builds without it.
if [ -z "${CCACHE_DIR:-}" ] && [ ! -w "${HOME:-/nonexistent}" ]; then
  export CCACHE_DISABLE=1
fi

# Configured once; afterwards the build notices by itself when that has to be done again.
if [ ! -f build/build.ninja ]; then
  printf 'configuring…\n'
  mkdir -p build
  if ! cmake --preset release >build/configure.log 2>&1; then
    cat build/configure.log >&2
    printf 'deploy/quickstart.sh: "cmake --preset release" failed, see above.\n' >&2
    exit 1
  fi
fi
printf 'building (some minutes the first time, nothing to do afterwards)…\n'
ninja -C build -j "$(nproc)" bulkhead modules

exec build/bin/bulkhead serve --config deploy/bulkhead.yaml "$@"
