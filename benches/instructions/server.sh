#!/usr/bin/env bash
# Counts the instructions of a whole server for a message that it accepts, makes
# durable and settles, with one shard and with two. The message goes to a `discard`
# route, or with `relay` to a sink:
#
#     cargo build --release && benches/instructions/server.sh [relay]
#
# The server runs under callgrind and takes 3000 messages, then, started anew, 9000;
# the difference is what 6000 messages take, without start and end. Callgrind runs
# one thread at a time, so the rates that the load sees mean nothing.
#
# Valgrind (3.19) does not know that io_uring_enter may wait, and lets no other
# thread run meanwhile. A small library goes between: it waits with poll(2) instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
server=
sink=
stop() {
    for one in $server $sink; do
        kill -9 "$one" 2>/dev/null && wait "$one" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap stop EXIT

hop='"discard"'
if [ "${1:-}" = relay ]; then
    hop='["127.0.0.1:4526"]'
    target/release/ringpost-sink --discard --listen 127.0.0.1:4526 --cores 1-1 >/dev/null 2>&1 &
    sink=$!
fi

cc -shared -fPIC -O1 -x c -o "$work/wait.so" - -ldl <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/syscall.h>
long syscall(long number, ...) {
    static long (*next)(long, ...);
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (!next) next = dlsym(RTLD_NEXT, "syscall");
    int waits = number == SYS_io_uring_enter && a[2] > 0;
    if (!waits) return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    long done = next(number, a[0], a[1], 0, a[3] & ~1L, a[4], a[5]);
    struct pollfd ring = { .fd = a[0], .events = POLLIN };
    if (done >= 0) poll(&ring, 1, -1);
    return done;
}
C

# As in count.rs: nothing that counts by the byte, nothing that goes by the clock.
export GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=0x10000000:glibc.cpu.x86_rep_stosb_threshold=0x10000000:glibc.cpu.x86_non_temporal_threshold=0x10000000
export MIMALLOC_PURGE_DELAY=-1

# count CPUS MESSAGES: the instructions of a server's life, in $total.
count() {
    rm -rf "$work/data" "$work/out"
    : >"$work/log"
    LD_PRELOAD="$work/wait.so" valgrind --tool=callgrind --fair-sched=yes \
        --callgrind-out-file="$work/out" target/release/ringpost serve \
        --set "cores=\"$1\"" --set "data_dir=\"$work/data\"" --set 'admin.http="off"' \
        --set 'listener=[{address="127.0.0.1:0"}]' --set 'limits.connections=1000' \
        --set "route=[{domain=\"*\", next_hop=$hop}]" >"$work/log" 2>&1 &
    server=$!
    local address=
    until [ -n "$address" ]; do
        kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
        address=$(sed -n 's/.* ready listening=\([^ ]*\).*/\1/p' "$work/log")
        sleep 0.1
    done
    env -u GLIBC_TUNABLES target/release/ringpost-load --target "$address" --cores 1-1 \
        --connections 100 --messages "$2" --size 4KiB >"$work/load" 2>&1
    grep -q "$2 accepted" "$work/load" || { cat "$work/load" >&2; exit 1; }
    until [ "$(grep -cE 'mail: (delivered|dropped) ' "$work/log")" -ge "$2" ]; do
        sleep 0.1
    done
    kill -TERM "$server"
    wait "$server"
    server=
    total=$(sed -n 's/^totals: //p' "$work/out")
}

echo "instructions a message, three runs"
for cpus in 0 0-1; do
    printf 'cores %-4s' "$cpus"
    for _ in 1 2 3; do
        count "$cpus" 3000
        few=$total
        count "$cpus" 9000
        printf ' %8d' $(((total - few) / 6000))
    done
    echo
done
