#!/bin/bash
# The life of the package in a fresh Debian root: installed, first run, removed, purged, and once more never used.
# Runs in namespaces of its own (mount, process, network), which end with it: nothing stays mounted or running.
#
#   life.sh ROOT DEB PG      ROOT is used up; PG is a relocatable PostgreSQL
set -euo pipefail
ROOT=$1 DEB=$2 PG=$3

step() { echo "== $*"; }
fail() { echo "FAILED: $*"; exit 1; }
inside() { chroot "$ROOT" "$@"; }
as_postgres() { inside setpriv --reuid postgres --regid postgres --clear-groups env LD_LIBRARY_PATH=/opt/pg/lib "$@"; }

# What an administrator finds on the disk: all but the package manager's own books, and what lives in memory.
files() {
    (cd "$ROOT" && find . -xdev \( -path ./proc -o -path ./run -o -path ./tmp -o -path ./opt -o -path ./mnt \
        -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./var/lib/postgresql \
        -o -name 'passwd*' -o -name 'group*' -o -name 'shadow*' -o -name 'gshadow*' -o -name 'sub[ug]id*' \
        -o -name .pwd.lock -o -name ld.so.cache \) -prune -o -print | sort)
}

wait_for() {
    local what=$1 try
    shift
    for try in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$ROOT"/tmp/*.log || true
    fail "$what did not happen ($try tries)"
}

healthz() { inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/9797 && printf "GET /healthz HTTP/1.0\r\n\r\n" >&3 && grep -q "^ok" <&3'; }

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
ip link set lo up
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/run"
mkdir -p "$ROOT/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$ROOT/dev/shm"
mkdir "$ROOT/opt/pg" && mount --bind -o ro "$PG" "$ROOT/opt/pg"
cp "$DEB" "$ROOT/tmp/pgkeep.deb"

step "the fresh root"
files >"$ROOT/tmp/before"
step "installation"
inside dpkg -i /tmp/pgkeep.deb
# shellcheck disable=SC2016 # dpkg-query expands it
[ "$(inside dpkg-query -W -f '${Status}' pgkeep)" = "install ok installed" ] || fail "not installed"
[ "$(inside id -gn postgres)" = postgres ] || fail "no user postgres"
[ -L "$ROOT/etc/systemd/system/multi-user.target.wants/pgkeep.service" ] || fail "the service is not enabled"
inside dpkg --verify pgkeep

step "purge without a first run"
inside dpkg --purge pgkeep
files >"$ROOT/tmp/after"
diff "$ROOT/tmp/before" "$ROOT/tmp/after" || fail "the purge left something"

step "installation again"
inside dpkg -i /tmp/pgkeep.deb >/dev/null
step "the documents"
# Links of a document lead to what the package brings, or to another site.
while read -r document; do
    while read -r link; do
        [ -e "$(dirname "$document")/$link" ] || fail "$document leads to $link"
    done < <(grep -o ']([^)#]*' "$document" | cut -c3- | grep -v ://)
done < <(find "$ROOT/usr/share/doc/pgkeep" -name '*.md')
zcat "$ROOT/usr/share/man/man1/pgkeep-restore.1.gz" | grep -q '^\.TH' || fail "no manual page"
inside bash -c '. /usr/share/bash-completion/completions/pgkeep' || fail "bash does not read its completions"

step "the first run"
inside pgkeep --version
inside pgkeep config example | grep -q '^\[cluster.main\]' || fail "no example"
install -d -o "$(inside id -u postgres)" -g "$(inside id -g postgres)" "$ROOT/var/lib/postgresql" "$ROOT/run/postgresql"
as_postgres /opt/pg/bin/initdb -D /var/lib/postgresql/data -A trust -E UTF8 --no-locale >/dev/null
printf '%s\n' "unix_socket_directories = '/run/postgresql'" "listen_addresses = ''" >>"$ROOT/var/lib/postgresql/data/postgresql.conf"
server() { as_postgres /opt/pg/bin/pg_ctl -D /var/lib/postgresql/data -l /tmp/server.log -w -s "$@"; }
server start
inside env LD_LIBRARY_PATH=/opt/pg/lib pgkeep init --repository file:///mnt/backups --bin-directory /opt/pg/bin --apply
server restart
grep -qx 'ReadWritePaths=-/mnt/backups' "$ROOT"/etc/systemd/system/pgkeep.service.d/*.conf || fail "no drop-in"
systemd-tmpfiles --root="$ROOT" --create pgkeep.conf
# As the unit has it, but for what only systemd can do.
command=$(sed -n 's/^ExecStart=//p' "$ROOT/usr/lib/systemd/system/pgkeep.service")
# Not through a function: the signal below must reach the agent.
# shellcheck disable=SC2086 # words of a command line
chroot "$ROOT" setpriv --reuid postgres --regid postgres --clear-groups $command 2>"$ROOT/tmp/agent.log" &
agent=$!
wait_for "the agent is healthy" healthz
inside pgkeep check
inside pgkeep --quiet backup
inside pgkeep list | grep -q full || fail "no backup"
# 4: something is wrong, perhaps this machine's disk is nearly full.
inside pgkeep status || [ $? = 4 ] || fail "no status"

step "removal"
kill -TERM $agent
wait $agent || fail "the agent did not end well: $(cat "$ROOT/tmp/agent.log")"
inside dpkg --remove pgkeep
[ ! -e "$ROOT/usr/bin/pgkeep" ] || fail "the program is still there"
[ -e "$ROOT/var/lib/pgkeep/agent.db" ] || fail "a removal is no purge"
server stop

step "purge"
inside dpkg --purge pgkeep
inside dpkg-query -W pgkeep 2>/dev/null && fail "still known to dpkg"
files >"$ROOT/tmp/after"
diff "$ROOT/tmp/before" "$ROOT/tmp/after" | grep '^[<>]' >"$ROOT/tmp/left" || true
echo "left:" && cat "$ROOT/tmp/left"
step "done"
