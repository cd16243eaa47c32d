#!/usr/bin/env python3
"""Writes local.json: what docs/formats.md says of values sealed by a local key, worked out by another program than the one that is
tested. Needs the package 'cryptography'. usage: make.py > local.json"""

import base64, hashlib, hmac, json
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(key, info):
    return HKDF(hashes.SHA256(), 32, None, info.encode()).derive(key)


def seal(key, message, place, seed):
    trailer = hashlib.sha256(seed.encode()).digest()[:28]  # any 28 bytes will do
    iv, nonce = trailer[:16], trailer[16:]
    return AESGCM(hmac.new(key, iv, hashlib.sha256).digest()).encrypt(nonce, message, place) + trailer


b64 = lambda data: base64.b64encode(data).decode()
lines = lambda *texts: "".join(text + "\n" for text in texts).encode()


def vector(name, key, value):
    id = derive(key, "claviger local seal id v1").hex()[:16]
    data_key = hashlib.sha256(b"data key of " + name.encode()).digest()  # any 32 bytes will do
    place = lines("claviger data key 1", id, name)
    wrapped = b64(seal(derive(key, "claviger local seal v1"), data_key, place, "wrapped " + name))
    place = lines("claviger sealed 1", "local", id, wrapped, name)
    record = {"version": 1, "provider": "local", "key": id, "data_key": wrapped,
              "value": b64(seal(data_key, value.encode(), place, "value " + name))}
    sealed = json.dumps({"claviger_sealed": record}, separators=(",", ":"))
    return {"name": name, "seal_key": b64(key), "value": value, "sealed": sealed}


old = '{"version":"v1","bytes":"q061PjQeuinc6LPdmhNw/73H3p4p5cYxOSNGwtSQ+2Q=","algorithm":"AES256-GCM_SHA256",' \
      '"created_at":"2026-11-22T07:54:50.77876252Z",' \
      '"created_by":"914a5dc1a29620b2009dd010c4bf2fb56d2b12e5b09d6fb15b553e1713c7a7d3"}'
print(json.dumps([
    vector("my-key", bytes(range(32)), old),
    vector("other_key", bytes(range(7, 39)), '{"bytes":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}'),
    vector("k", bytes(range(14, 46)), ""),
], indent=1))
