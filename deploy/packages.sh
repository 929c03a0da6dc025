#!/bin/sh
# The one list of the Debian 12 packages that building, running and testing Bulkhead needs; installs those that are missing.
#   sh deploy/packages.sh          as root, or as a user who may use sudo; returns at once when nothing is missing
#   sh deploy/packages.sh --list   prints the list
#   sh deploy/packages.sh --fuzz   also what tests/fuzz/run.sh needs
# As root it also makes the system user `bulkhead`, to whom the daemon drops its privileges.
# prometheus-cpp-dev: the text format of /metrics is written by Prometheus' own library.
# No Redis is left running that this starts: tests start their own.
# No PostgreSQL cluster of Debian's own is created or started: the daemon keeps a private one in its data folder.
set -eu
PATH=/usr/local/sbin:/usr/sbin:/sbin:$PATH

build='
  g++ cmake ninja-build mold ccache pkgconf
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev libabsl-dev
  libpq-dev libssl-dev libcurl4-openssl-dev prometheus-cpp-dev libargon2-dev libhiredis-dev
  libre2-dev libvalijson-dev libyaml-cpp-dev libspdlog-dev libcli11-dev nlohmann-json3-dev'
run='postgresql-common postgresql-15 tzdata ca-certificates curl'
tests='redis-server libgtest-dev libgmock-dev python3 python3-grpcio python3-protobuf python3-aiosmtpd python3-h2 openssl'
fuzz='clang libclang-rt-14-dev'

lock_timeout_s=120 # how long to wait for another apt to finish

say() { printf '%s\n' "$*"; }
fail() {
  say "deploy/packages.sh: $*" >&2
  exit 1
}
is_root() { [ "$(id -u)" = 0 ]; }

# Those of "$@" that are not installed, on one line.
missing_of() {
  dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | awk -v wanted="$*" '
    /^.i/ { installed[$NF] = 1 }
    END {
      n = split(wanted, name, " ")
      for (i = 1; i <= n; i++) if (!(name[i] in installed)) { printf "%s%s", separator, name[i]; separator = " " }
    }'
}

# Runs a command with its output in the log; the end of the log is shown when it fails.
quietly() {
  say "+ $*" >>"$log"
  "$@" >>"$log" 2>&1 </dev/null
}
apt_fail() {
  tail -n 15 "$log" >&2
  fail "$1 (the whole output: $log)"
}
apt_install() {
  quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    -o DPkg::Lock::Timeout="$lock_timeout_s" "$@" || apt_fail "apt-get could not install: $*"
}
apt_update() {
  quietly apt-get update -q -o DPkg::Lock::Timeout="$lock_timeout_s" ||
    quietly apt-get update -q -o DPkg::Lock::Timeout="$lock_timeout_s" || apt_fail 'apt-get update failed twice'
}

# The first installation of a PostgreSQL server creates and starts a cluster, unless this setting says otherwise. On a machine that
# has a server of another version already the setting is the operator's: there it holds for this installation only.
install_postgresql() {
  apt_install postgresql-common
  settings=/etc/postgresql-common/createcluster.conf
  if dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 'postgresql-[0-9]*' 2>/dev/null | grep -Eq '^.i.* postgresql-[0-9]+$'; then
    for_now=/etc/postgresql-common/createcluster.d/bulkhead.conf
    mkdir -p "${for_now%/*}"
    trap 'rm -f "$for_now"' EXIT
    say 'create_main_cluster = false' >"$for_now"
    apt_install postgresql-15
    rm -f "$for_now"
    trap - EXIT
  else
    sed -i '/^[[:space:]]*create_main_cluster[[:space:]]*=/d' "$settings"
    say 'create_main_cluster = false' >>"$settings"
    apt_install postgresql-15
  fi
}

make_user() {
  getent passwd bulkhead >/dev/null && return
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
    --comment 'Bulkhead supervisor' bulkhead || fail 'the system user "bulkhead" could not be made.'
}

with=
if [ "${1-}" = --fuzz ]; then
  with=--fuzz
  tests="$tests $fuzz"
  shift
fi
# shellcheck disable=SC2086 # lists of names
set -- ${1+"$1"} -- $build $run $tests
if [ "$1" = --list ]; then
  shift 2
  printf '%s\n' "$@"
  exit 0
fi
[ "$1" = -- ] || fail "unknown option $1; there are --list and --fuzz"
shift

command -v apt-get >/dev/null ||
  fail 'this machine has no apt. Bulkhead is built on Debian 12; the option --list prints the names of what it needs.'
missing=$(missing_of "$@")

if [ -n "$missing" ] && ! is_root; then
  how="As root run: apt-get install --no-install-recommends $missing (or: sh deploy/packages.sh)"
  command -v sudo >/dev/null || fail "these packages are missing and there is no sudo here: $missing. $how"
  sudo -n true 2>/dev/null || sudo -v || fail "these packages are missing and sudo refuses: $missing. $how"
  exec sudo sh "$0" $with
fi

if [ -n "$missing" ]; then
  log=$(mktemp "${TMPDIR:-/tmp}/bulkhead-packages.XXXXXX")
  # shellcheck disable=SC2086
  set -- $missing
  say "installing $# package(s) (a few minutes; output in $log)…"
  apt_update
  case " $missing " in *' postgresql-15 '*) install_postgresql ;; esac
  # shellcheck disable=SC2086
  apt_install $missing
  case " $missing " in *' redis-server '*) systemctl disable --now redis-server >>"$log" 2>&1 || true ;; esac
  rm -f "$log"
fi
if is_root; then
  make_user
fi
