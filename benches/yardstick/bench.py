"""What is measured: servers with their certificates, configs and load."""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
YARDSTICK = HERE / "target/release/yardstick"
LOAD = HERE / "target/release/load"
SERVER_CORE, LOAD_CORE = "0", "1"

# Ways to ask, as options of the load generator.
H1 = "protocol=h1 connections=16"
H2_1X1, H2_1X16, H2_1X64 = (f"protocol=h2 connections=1 streams={streams}" for streams in (1, 16, 64))
H2_16X4 = "protocol=h2 connections=16 streams=4"
HANDSHAKES = "mode=handshakes connections=8"


class Bench:
    """A directory with certificates, and what was started from it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.certs = self.directory / "certs"
        self.certs.mkdir()
        self.make_certificates()
        self.identity = hashlib.sha256(self.public_key("client")).hexdigest()

    def make_certificates(self):
        client = ["-addext", "extendedKeyUsage=clientAuth", "-addext", "basicConstraints=critical,CA:FALSE"]
        names = {"server": ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], "client": client, "admin": client}
        for name, extensions in names.items():
            key = str(self.certs / f"{name}.key")
            algorithm = ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if name == "server" else ["ed25519"]
            run("openssl", "genpkey", "-algorithm", *algorithm, "-out", key)
            run("openssl", "req", "-new", "-x509", "-key", key, "-days", "365", "-subj", f"/CN={name}", *extensions,
                "-out", str(self.certs / f"{name}.crt"))

    def public_key(self, name):
        return run("openssl", "pkey", "-in", str(self.certs / f"{name}.key"), "-pubout", "-outform", "DER")

    def enclave_identity(self, name):
        digest = hashlib.sha256(self.public_key(name)).digest()
        return f"h1:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    def keys(self, count):
        """A directory of `count` stored keys. Names are links: a million files would fill a disk."""
        directory = self.directory / f"keys-{count}"
        if directory.exists():
            return directory
        directory.mkdir()
        value = {"bytes": base64.b64encode(bytes(range(32))).decode(), "algorithm": "AES256-GCM_SHA256"}
        for n in range(count):
            name = directory / f"bench-{n}"
            if n % 50_000 == 0:
                first = name
                first.write_text(json.dumps(value))
                first.chmod(0o600)
            else:
                os.link(first, name)
        return directory

    def config(self, port, keys=1_000, policies=1, audit=False):
        """The config that is measured: 20 rules, of which the last one matches."""
        rules = [f"/v1/key/{action}/app-{n}-*" for n in range(5) for action in ("create", "generate", "decrypt")]
        rules += ["/v1/key/list/*", "/v1/key/describe/*", "/v1/status", "/v1/metrics"]
        text = f"address: 127.0.0.1:{port}\nadmin: {{identity: disabled}}\n"
        text += f"tls: {{key: {self.certs}/server.key, cert: {self.certs}/server.crt}}\n"
        text += "cache: {expiry: {any: 1h, unused: 1h, offline: 0s}}\n"
        text += f"log: {{error: 'on', audit: '{'on' if audit else 'off'}'}}\n"
        text += f"keystore: {{fs: {{path: {self.keys(keys)}}}}}\npolicy:\n"
        allow = json.dumps(rules[:18] + ["/v1/key/*"])
        text += f"  bench: {{allow: {allow}, deny: [/v1/key/delete/*], identities: [{self.identity}]}}\n"
        for n in range(1, policies):
            other = hashlib.sha256(str(n).encode()).hexdigest()
            text += f"  other-{n}: {{allow: {allow}, identities: [{other}]}}\n"
        path = self.directory / f"config-{port}.yml"
        path.write_text(text)
        return path

    def claviger(self, binary, stdout=subprocess.DEVNULL, cores=SERVER_CORE, wrapper=(), **config):
        port = free_port()
        command = [*wrapper, str(binary), "server", "--config", str(self.config(port, **config))]
        return Server(self, command, port, cores, stdout)

    def key_manager(self, binary, data, cores=SERVER_CORE, wrapper=()):
        """A key manager on this data."""
        config, admin = self.directory / "kms.yml", self.enclave_identity("admin")
        config.write_text(f"version: v1\nadmin: {{identity: '{admin}'}}\nlog: {{audit: 'off'}}\n"
                          f"tls: {{certs: [{{key: {self.certs}/server.key, cert: {self.certs}/server.crt}}]}}\n")
        port = free_port()
        os.environ["MINIO_KMS_HSM_KEY"] = f"hsm:aes256:{base64.b64encode(bytes(32)).decode()}"
        command = [*wrapper, str(binary), "kms", "server", str(data), "--config", str(config), "--address", f"127.0.0.1:{port}"]
        return Server(self, command, port, cores, subprocess.DEVNULL, api="kms")

    def yardstick(self, wrapper=()):
        port = free_port()
        command = [*wrapper, str(YARDSTICK), f"listen=127.0.0.1:{port}", f"certs={self.certs}"]
        return Server(self, command, port, SERVER_CORE, subprocess.DEVNULL)

    def ssl(self, name="client"):
        context = ssl.create_default_context(cafile=self.certs / "server.crt")
        context.load_cert_chain(self.certs / f"{name}.crt", self.certs / f"{name}.key")
        return context


class Server:
    """A running server; stops at the end of the `with` block."""

    def __init__(self, bench, command, port, cores, stdout, api="kes"):
        self.bench, self.port, self.api = bench, port, api
        self.process = subprocess.Popen(["taskset", "-c", cores, *command], stdout=stdout, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid

    def __enter__(self):
        deadline = time.monotonic() + 60
        while True:
            if self.process.poll() is not None:
                sys.exit(f"{self.process.args} ended with {self.process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            if time.monotonic() > deadline:
                sys.exit(f"{self.process.args} does not listen")
            time.sleep(0.01)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def start_load(self, options, pid=True):
        server = f"address=127.0.0.1:{self.port} certs={self.bench.certs} pid={self.pid if pid else 0}"
        if self.api == "kes":
            # The nearest thing that the KES API has.
            options = re.sub("operation=(encrypt|status)", "operation=generate", options)
        command = ["taskset", "-c", LOAD_CORE, str(LOAD), *server.split(), *options.split(), f"api={self.api}"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def load(self, options, pid=True):
        """Runs the load generator to its end; an error is nobody's measurement."""
        process = self.start_load(options, pid)
        out, _ = process.communicate()
        seen = json.loads(out)
        if seen["errors"] or process.returncode:
            sys.exit(f"{options}: {seen}")
        return seen

    def warm(self, keys=1_000):
        """Has every key cached."""
        self.load(f"{H2_1X16} keys={keys} warm=0 seconds=60 count={keys + 16}", pid=False)

    def rss(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1_024

    def cpu(self):
        return time.clock_gettime((~self.pid << 3) | 2)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def compare(servers, requests, rounds, seconds="0.7"):
    """Asks all servers in turn, round after round; medians, and the median ratio to the first one."""
    seen = {(what, name): [] for what in requests for name in servers}
    for turn in range(rounds):
        for what, options in requests.items():
            names = list(servers)
            names = names[turn % len(names):] + names[:turn % len(names)]
            for name in names:
                seen[what, name].append(servers[name].load(f"{options} warm=0.25 seconds={seconds}"))
    print(f"{'':34} {'CPU us':>8} {'ratio':>6}   {'p50 us':>8} {'ratio':>6}   {'p99 us':>8} {'per s':>8}")
    for what in requests:
        first = seen[what, next(iter(servers))]
        for name in servers:
            rows = seen[what, name]
            median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            ratio = {key: statistics.median(row[key] / base[key] for row, base in zip(rows, first))
                     for key in ("cpu_us", "p50_us")}
            print(f"{what:20} {name:13} {median['cpu_us']:8.2f} {ratio['cpu_us']:6.3f}   {median['p50_us']:8.1f} "
                  f"{ratio['p50_us']:6.3f}   {median['p99_us']:8.1f} {median['per_second']:8.0f}", flush=True)


def count_instructions(bench, start, options, count):
    """How many instructions a server carries out from its start to the end of so many requests."""
    out = bench.directory / "callgrind.out"
    with start(wrapper=("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}")) as server:
        server.warm(100)
        server.load(f"{options} warm=0 seconds=300 count={count}", pid=False)
    return int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)[1])
