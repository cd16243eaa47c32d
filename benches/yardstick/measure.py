#!/usr/bin/env python3
"""Measures a release build of Claviger beside the yardstick; docs/measurements.md has the results.

    cargo build --release && cargo build --release --manifest-path benches/yardstick/Cargo.toml
    benches/yardstick/measure.py [--server PATH] [--against PATH] [--rounds N] WHAT...

WHAT: ratio audit instructions writev workers memory start size flat listing; of the key manager: kms
kms_instructions kms_writes kms_scale; or all. Server on core 0, load on core 1.
All traffic stays on 127.0.0.1. Needs openssl; valgrind for `instructions`, strace for `writev`.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from bench import H1, H2_1X1, H2_1X16, H2_1X64, H2_16X4, HANDSHAKES, HERE, Bench, compare, count_instructions
from key_manager import kms, kms_instructions, kms_scale, kms_writes

# What is asked, as options of the load generator.
REQUESTS = {
    "h1 c=16 generate": H1,
    "h1 c=16 decrypt": f"{H1} operation=decrypt",
    "h2 1x1 generate": H2_1X1,
    "h2 1x1 decrypt": f"{H2_1X1} operation=decrypt",
    "h2 1x16 generate": H2_1X16,
    "h2 1x64 generate": H2_1X64,
    "h2 16x4 generate": H2_16X4,
    "full handshake": HANDSHAKES,
    "resumed handshake": f"{HANDSHAKES} resume=1",
}


def ratio(bench, args):
    """Server CPU a request, beside the yardstick."""
    with contextlib.ExitStack() as stack:
        servers = {"yardstick": stack.enter_context(bench.yardstick())}
        binaries = {"claviger": args.server} | ({"against": args.against} if args.against else {})
        for name, binary in binaries.items():
            servers[name] = stack.enter_context(bench.claviger(binary))
            servers[name].warm()
        compare(servers, {what: options for what, options in REQUESTS.items() if args.only in what}, args.rounds)


def audit(bench, args):
    """What audit events to a file add."""
    with (bench.directory / "audit.log").open("wb") as file, bench.claviger(args.server) as off:
        with bench.claviger(args.server, stdout=file, audit=True) as on:
            requests = {what: REQUESTS[what] for what in ("h1 c=16 generate", "h2 1x1 generate", "h2 1x16 generate")}
            compare({"audit off": off, "audit on": on}, requests, args.rounds)
        print(f"{'audit lines':34} {sum(1 for _ in (bench.directory / 'audit.log').open('rb'))}")


def instructions(bench, args):
    """User instructions a request: the difference of two runs under callgrind."""
    kinds = {"yardstick": bench.yardstick, "claviger": lambda wrapper: bench.claviger(args.server, wrapper=wrapper)}
    if args.against:
        kinds["against"] = lambda wrapper: bench.claviger(args.against, wrapper=wrapper)
    for what in ("h1 c=16 generate", "h1 c=16 decrypt", "h2 1x1 decrypt", "h2 1x16 generate"):
        if args.only not in what:
            continue
        for kind, start in kinds.items():
            counts = [count_instructions(bench, start, REQUESTS[what], count) for count in (500, 2_500)]
            print(f"{what:20} {kind:13} {(counts[1] - counts[0]) / 2_000:8.0f} instructions", flush=True)


def writev(bench, args):
    """System calls a request."""
    if not shutil.which("strace"):
        sys.exit("strace is missing: apt-get install strace")
    out, count = bench.directory / "strace", 20_000
    for kind, server in (("yardstick", bench.yardstick()), ("claviger", bench.claviger(args.server))):
        with server:
            server.warm(100)
            tracer = subprocess.Popen(["strace", "-f", "-c", "-p", str(server.pid), "-o", out], stderr=subprocess.PIPE)
            tracer.stderr.readline()
            server.load(f"{H2_1X16} warm=0 seconds=300 count={count}", pid=False)
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
        calls = {row[-1]: int(row[3]) for line in out.read_text().splitlines() if len(row := line.split()) >= 5
                 and row[3].isdigit() and row[-1] != "total"}
        per_request = ", ".join(f"{name} {n / count:.3f}" for name, n in calls.items() if n >= count / 200)
        print(f"{'h2 1x16 calls a request':24} {kind:9} {per_request}", flush=True)


def workers(bench, args):
    """Two workers against one. Load and servers share the two cores: only CPU time counts."""
    requests = {what: REQUESTS[what] for what in ("h1 c=16 generate", "h2 16x4 generate", "full handshake")}
    requests["h2 2x16 generate"] = "protocol=h2 connections=2 streams=16"
    with bench.claviger(args.server) as one, bench.claviger(args.server, cores="0,1") as two:
        one.warm()
        two.warm()
        compare({"one worker": one, "two workers": two}, requests, args.rounds)


def memory(bench, args):
    """Resident memory: idle, and with 1,000 idle connections. On two workers, as everywhere."""
    for protocol in ("h1", "h2"):
        with bench.claviger(args.server, cores="0,1") as server:
            server.warm()
            idle = server.rss()
            load = server.start_load(f"mode=hold protocol={protocol} connections=1000")
            load.stdout.readline()
            time.sleep(2)
            print(f"{protocol:24} idle {idle:.1f} MiB, with 1,000 connections {server.rss():.1f} MiB", flush=True)
            load.communicate("\n")


def start(bench, args):
    """From the start of the process to its first answer."""
    context, took = bench.ssl(), []
    for _ in range(2 * args.rounds + 1):
        started = time.monotonic()
        server = bench.claviger(args.server, cores="0,1")
        while True:
            try:
                connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
                connection.request("GET", "/version")
                connection.getresponse().read()
                break
            except ConnectionRefusedError:
                time.sleep(0.0005)
        took.append((time.monotonic() - started) * 1e3)
        connection.close()
        server.__exit__()
    print(f"{'start to first answer':24} median {statistics.median(took):.1f} ms, slowest {max(took):.1f} ms")


def size(_, args):
    """The release binary."""
    print(f"{'size of the binary':24} {os.path.getsize(args.server) / 2**20:.1f} MiB")


def flat(bench, args):
    """What must not matter: how many keys, policies and connections there are."""
    requests = {what: REQUESTS[what] for what in ("h1 c=16 generate", "h2 1x16 generate")}
    with bench.claviger(args.server) as few, bench.claviger(args.server, keys=100_000) as many:
        few.warm(10)
        many.warm(100_000)
        print("one key asked for, of 10 or 100,000 cached and stored")
        compare({"10 keys": few, "100,000 keys": many}, requests, args.rounds)
        print("all keys asked for in turn")
        all_keys = [{what: f"{options} keys={keys}" for what, options in requests.items()} for keys in (10, 100_000)]
        compare({"10 keys": few}, all_keys[0], args.rounds)
        compare({"100,000 keys": many}, all_keys[1], args.rounds)
    with bench.claviger(args.server) as few, bench.claviger(args.server, policies=1_000) as many:
        compare({"1 policy": few, "1,000 policies": many}, requests, args.rounds)
    with bench.claviger(args.server) as few, bench.claviger(args.server) as many:
        load = many.start_load("mode=hold protocol=h2 connections=1000")
        load.stdout.readline()
        compare({"no other": few, "1,000 others": many}, requests, args.rounds)
        load.communicate("\n")


def listing(bench, args):
    """A listing of 1,000,000 keys, page after page."""
    with bench.claviger(args.server, keys=1_000_000) as server:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=bench.ssl())
        pattern, names, costs = "", 0, []
        while pattern is not None:
            before = server.cpu()
            connection.request("GET", f"/v1/key/list/{pattern}")
            page = json.loads(connection.getresponse().read())
            costs.append(server.cpu() - before)
            names += len(page["names"])
            pattern = page.get("continue_at") or None
        print(f"{'listing':24} {names} names in {len(costs)} pages: {sum(costs):.2f} s of CPU, first page "
              f"{costs[0]:.2f} s, others {statistics.mean(costs[1:]) * 1e3:.2f} ms each")


EVERYTHING = (ratio, audit, instructions, writev, workers, memory, start, size, flat, listing, kms, kms_instructions, kms_writes, kms_scale)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--server", default=HERE.parent.parent / "target/release/claviger", help="the server's binary")
    parser.add_argument("--against", help="another build, to compare with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many keys `kms_scale` makes")
    parser.add_argument("--only", default="", help="the rows whose name holds this")
    parser.add_argument("what", nargs="+", choices=["all", *(measure.__name__ for measure in EVERYTHING)])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(directory)
        for measure in EVERYTHING:
            if measure.__name__ in args.what or "all" in args.what:
                print(f"## {measure.__name__}", flush=True)
                measure(bench, args)


main()
