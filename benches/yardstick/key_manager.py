"""What is measured of the key manager."""

import contextlib
import functools
import http.client
import statistics
import threading
import time

from bench import H1, H2_1X1, H2_1X16, H2_1X64, H2_16X4, compare, count_instructions

# Numbers of commands.
ENCLAVE_CREATE, KEY_CREATE, KEY_LIST, POLICY_CREATE, POLICY_ASSIGN, IDENTITY_CREATE = 101, 201, 208, 301, 303, 401

REQUESTS = {
    f"{way} {operation}": f"{options} operation={operation}"
    for way, options in (("h1 c=16", H1), ("h2 1x1", H2_1X1), ("h2 1x16", H2_1X16))
    for operation in ("generate", "decrypt", "encrypt", "status")
} | {"h2 1x64 generate": H2_1X64, "h2 16x4 generate": H2_16X4}


class Client:
    """Asks a key manager as its administrator, one request after the other on one connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.bench.ssl("admin"))

    def ask(self, method, path, body=None):
        self.connection.request(method, path, body, {"Accept": "application/octet-stream"})
        response = self.connection.getresponse()
        answer = response.read()
        assert response.status == 200, (path, response.status, answer)
        return answer

    def command(self, enclave, *commands):
        return self.ask("POST", f"/v1/kms/{enclave}", b"".join(
            number.to_bytes(2, "big") + len(message).to_bytes(4, "big") + message for number, message in commands))

    def create_keys(self, prefix, numbers):
        self.command("bench", *((KEY_CREATE, text(1, f"{prefix}-{n}")) for n in numbers))


def text(field, value):
    """A field of a message."""
    value = value.encode() if isinstance(value, str) else value
    length, varint = len(value), bytearray()
    while length >= 128:
        varint.append(length & 127 | 128)
        length >>= 7
    return bytes([field << 3 | 2, *varint, length]) + value


def fill(server, keys):
    """Makes the enclave, its keys, and the user who asks; returns how long the keys took, in seconds."""
    client, user = Client(server), server.bench.enclave_identity("client")
    client.command("", (ENCLAVE_CREATE, text(1, "bench")))
    # 20 rules, of which the last one of an action matches.
    rules = b"".join(text(1, text(1, name) + text(2, b"")) for name in ("app-0-*", "app-1-*", "app-2-*", "bench-*"))
    actions = (f"KEY:{action}" for action in ("CREATE", "STATUS", "ENCRYPT", "DECRYPT", "GENERATE"))
    allow = b"".join(text(2, text(1, action) + text(2, rules)) for action in actions)
    client.command("bench", (POLICY_CREATE, text(1, "bench") + allow), (IDENTITY_CREATE, text(1, user)),
                   (POLICY_ASSIGN, text(1, user) + text(2, "bench")))
    started = time.monotonic()
    for first in range(0, keys, 20_000):
        client.create_keys("bench", range(first, min(first + 20_000, keys)))
    return time.monotonic() - started


def kms(bench, args):
    """Server CPU a request to the key manager, beside the yardstick."""
    with contextlib.ExitStack() as stack:
        servers = {"yardstick": stack.enter_context(bench.yardstick())}
        binaries = {"key manager": args.server} | ({"against": args.against} if args.against else {})
        for name, binary in binaries.items():
            servers[name] = stack.enter_context(bench.key_manager(binary, bench.directory / name))
            fill(servers[name], 1_000)
        compare(servers, {what: options for what, options in REQUESTS.items() if args.only in what}, args.rounds)


def kms_instructions(bench, args):
    """User instructions a request to the key manager: the difference of two runs under callgrind."""
    for what in ("h1 c=16 generate", "h1 c=16 decrypt", "h2 1x1 decrypt", "h2 1x16 generate", "h2 1x16 status"):
        if args.only not in what:
            continue
        for kind, binary in {"key manager": args.server, "against": args.against}.items():
            if not binary:
                continue
            data = bench.directory / f"instructions-{kind}"
            if not data.exists():
                with bench.key_manager(binary, data) as server:
                    fill(server, 1_000)
            start = functools.partial(bench.key_manager, binary, data)
            counts = [count_instructions(bench, start, REQUESTS[what], count) for count in (500, 2_500)]
            print(f"{what:20} {kind:13} {(counts[1] - counts[0]) / 2_000:8.0f} instructions", flush=True)


def kms_writes(bench, args):
    """How long reads take while others write. Server and load share the two cores."""
    with bench.key_manager(args.server, bench.directory / "writes", cores="0,1") as server:
        fill(server, 1_000)
        for what, writers, batch in (("no writes", 0, 0), ("4 writers of one", 4, 1), ("1 of 1,000 at once", 1, 1_000)):
            stop, written, threads = threading.Event(), [0] * writers, []
            for n in range(writers):
                threads.append(threading.Thread(target=write, args=(server, f"{batch}-{n}", batch, stop, written, n)))
                threads[-1].start()
            started = time.monotonic()
            seen = server.load(f"{H2_1X1} operation=decrypt warm=0.5 seconds=4")
            took = time.monotonic() - started
            stop.set()
            for thread in threads:
                thread.join()
            print(f"{what:24} p50 {seen['p50_us']:.0f} us, p99 {seen['p99_us']:.0f} us, max {seen['max_us']:.0f} us, "
                  f"{seen['per_second']:.0f} reads and {sum(written) / took:.0f} creates a second", flush=True)


def write(server, prefix, batch, stop, written, nth):
    client = Client(server)
    while not stop.is_set():
        client.create_keys(prefix, range(written[nth], written[nth] + batch))
        written[nth] += batch


def kms_scale(bench, args):
    """A store of very many keys: to make, start with, list, back up, restore, and ask."""
    data = bench.directory / "scale"
    with bench.key_manager(args.server, data, cores="0,1") as server:
        took = fill(server, args.keys)
        print(f"{'made':24} {args.keys} keys in {took:.1f} s, {server.rss():.0f} MiB resident, "
              f"{size(data):.0f} MiB on disk", flush=True)
    for _ in range(3):
        started = time.monotonic()
        server = bench.key_manager(args.server, data, cores="0,1")
        with server:
            Client(server).ask("GET", "/version")
            print(f"{'start':24} {time.monotonic() - started:.2f} s to the first answer, {server.cpu():.2f} s of CPU, "
                  f"{server.rss():.0f} MiB resident", flush=True)
    with bench.key_manager(args.server, data) as many, bench.key_manager(args.server, bench.directory / "few") as few:
        listing(many)
        fill(few, 10)
        requests = {what: REQUESTS[what] for what in ("h1 c=16 decrypt", "h2 1x16 decrypt")}
        print("one key asked for", flush=True)
        compare({"10 keys": few, f"{args.keys} keys": many}, requests, args.rounds)
        print("10 or 100,000 keys asked for in turn", flush=True)
        # Generated: to decrypt, the load generator would first need something encrypted under each.
        requests = {what: REQUESTS[what] for what in ("h1 c=16 generate", "h2 1x16 generate")}
        for server, keys in ((few, 10), (many, min(args.keys, 100_000))):
            compare({f"{keys} keys": server}, {what: f"{ask} keys={keys}" for what, ask in requests.items()}, args.rounds)
        client = Client(many)
        started = time.monotonic()
        backup = client.ask("GET", "/v1/db")
        print(f"{'backup':24} {time.monotonic() - started:.2f} s, {len(backup) / 2**20:.0f} MiB", flush=True)
        started = time.monotonic()
        client.ask("PUT", "/v1/db", backup)
        print(f"{'restore':24} {time.monotonic() - started:.2f} s", flush=True)


def listing(server):
    client, names, costs, first = Client(server), 0, [], b""
    while True:
        before = server.cpu()
        page = client.command("bench", (KEY_LIST, text(2, first) if first else b""))[6:]
        costs.append(server.cpu() - before)
        keys, first = parse_page(page)
        names += keys
        if not first:
            break
    print(f"{'listing':24} {names} keys in {len(costs)} pages: {sum(costs):.2f} s of CPU, {costs[0] * 1e3:.1f} ms the "
          f"first, {max(costs) * 1e3:.1f} ms the slowest, {statistics.mean(costs) * 1e3:.1f} ms on average", flush=True)


def parse_page(page):
    """How many keys are on a page, and the first one of the next."""
    at, keys = 0, 0
    while at < len(page):
        length = page[at + 1]
        start = at + 2
        if length >= 128:
            length, start = (length & 127) | page[start] << 7, start + 1
        if page[at] == 0x12:
            return keys, page[start:start + length]
        at, keys = start + length, keys + 1
    return keys, b""


def size(directory):
    """What a directory takes on disk, in MiB."""
    return sum(file.stat().st_blocks * 512 for file in directory.iterdir()) / 2**20
