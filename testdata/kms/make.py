#!/usr/bin/env python3
"""Writes formats.json and transit.json: what docs/formats.md says of the key manager's data, worked out by another program than the one that is
tested. Needs the package 'cryptography'. usage: make.py > formats.json; make.py transit > transit.json"""

import base64, hashlib, hmac, json, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(key, info):
    return HKDF(hashes.SHA256(), 32, None, info.encode()).derive(key)


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def seal(key, message, place, seed):
    trailer = hashlib.sha256(seed.encode()).digest()[:28]  # any 28 bytes will do
    iv, nonce = trailer[:16], trailer[16:]
    return AESGCM(mac(key, iv)).encrypt(nonce, message, place) + trailer


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value if value else b""


def rules(number, rules):
    entry = lambda action, pattern: field(1, action) + field(2, field(1, field(1, pattern) + b"\x12\x00"))
    return b"".join(field(number, entry(action, pattern)) for action, pattern in rules)


b64 = lambda data: base64.b64encode(data).decode()
b64url = lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")


def identity(seed):
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    info = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "h1:" + b64url(hashlib.sha256(info).digest())


hsm, root, enclave = bytes(range(32)), bytes(range(100, 132)), bytes(range(200, 216))
api_key = derive(hsm, "claviger kms root api key v1")
names, records, marks = (derive(root, f"claviger kms {what} v1") for what in ("name", "record", "mark"))
time = field(1, 1_700_000_000) + field(2, 5)
user = identity(bytes([1] * 32))

secret, hmac_key = bytes([11] * 32), bytes([12] * 32)
stored = field(1, field(1, secret) + field(2, 1)) + field(2, field(1, hmac_key) + field(2, 1)) + field(3, time)
version = field(1, 3) + field(2, b64(stored))
contents = {
    (1, bytes(16), "tenant"): field(1, enclave) + field(2, "tenant") + field(3, time) + field(4, user),
    (2, enclave, "my-key"): field(1, enclave) + field(2, "my-key") + field(3, 5) + field(4, version),
    (3, enclave, "app"): field(1, enclave) + field(2, "app") + rules(3, [("KEY:DECRYPT", "my-*")])
    + rules(4, [("KEY:DELETE", "*")]) + field(5, time) + field(6, user),
    (4, enclave, user): field(1, enclave) + field(2, user) + field(3, 3) + field(4, "app") + field(6, time)
    + field(7, user) + field(8, field(1, "team") + field(2, "blue")),
}


transit = sys.argv[1:] == ["transit"]
if transit:
    keys = [bytes([n] * 32) for n in (21, 22)]
    hmac_keys = [bytes([n] * 32) for n in (31, 32)]
    versions = b"".join(field(7, field(1, k) + field(2, h) + field(3, time) + field(4, user)) for k, h in zip(keys, hmac_keys))
    key = field(1, "aes256-gcm96") + field(2, 1) + field(3, 1) + field(4, 2) + field(5, 3) + field(6, 2) + versions
    contents[(5, enclave, "3f2a.1")] = field(1, enclave) + field(2, "3f2a.1") + field(3, key)


def record(table, enclave, name, message):
    id = mac(names, bytes([table]), enclave, name.encode())
    return id, seal(records, bytes([table]) + message, id, name)


written = [record(*place, message) for place, message in contents.items()]
total = bytes(32)
for id, value in written:
    total = bytes(a ^ b for a, b in zip(total, mac(marks, id, value)))
written.append(record(0, bytes(16), "", field(1, 7) + field(2, len(contents)) + field(3, total)))

sealed = seal(derive(hsm, "claviger kms seal v1"), root, b"env", "seal")
part = lambda kind, name, value: bytes([kind]) + b"".join(len(x).to_bytes(4, "big") + x for x in (name, value))
backup = b"claviger kms backup v1\n" + part(1, b"env", sealed) + b"".join(part(2, *r) for r in written) + b"\x03"

if transit:
    derived = HKDF(hashes.SHA256(), 32, None, b"my context").derive(keys[0])
    nonce = bytes(range(12))
    body = nonce + AESGCM(derived).encrypt(nonce, b"hello", b"bound")
    print(json.dumps({
        "hsm_key": "hsm:aes256:" + b64(hsm),
        "root_identity": identity(api_key),
        "backup": b64(backup),
        "name": "3f2a.1",
        "context": "my context",
        "associated_data": "bound",
        "plaintext": "hello",
        "ciphertext": "vault:v2:" + b64(body),
        "hmac": "vault:v3:" + b64(mac(hmac_keys[1], b"hello")),
    }, indent=2))
    sys.exit()

iv_nonce = bytes(range(28))
print(json.dumps({
    "hsm_key": "hsm:aes256:" + b64(hsm),
    "root_api_key": "k1:" + b64url(api_key),
    "root_identity": identity(api_key),
    "user_api_key": "k1:" + b64url(bytes([1] * 32)),
    "user_identity": user,
    "seals": {"env": b64(sealed)},
    "records": [[b64(id), b64(value)] for id, value in written],
    "backup": b64(backup),
    "ciphertext": b64(AESGCM(mac(secret, iv_nonce[:16])).encrypt(iv_nonce[16:], b"hello", b"{}") + iv_nonce),
    "mac_of_hello": b64(mac(hmac_key, b"hello")),
}, indent=2))
