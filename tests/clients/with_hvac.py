"""What people do with hvac, Python's client of a Vault, against the key manager.

usage: with_hvac.py URL CA-FILE TOKEN ROLE-ID SECRET-ID

The token may do everything with keys and entries of the key/value engine; the role is the same user. Fails at the first
answer that is not as expected.
"""

import base64
import sys

import hvac
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

url, ca, token, role, secret = sys.argv[1:]


def text(value):
    return base64.b64encode(value).decode()


def refused(kind, call, *args, **named):
    try:
        call(*args, **named)
    except kind as error:
        return str(error)
    raise AssertionError(f"{call} was answered")


client = hvac.Client(url=url, token=token, verify=ca)
assert client.is_authenticated()
assert client.sys.is_initialized() and not client.sys.is_sealed()
assert client.sys.read_health_status(method="GET")["sealed"] is False

# Keys: made, listed, rotated, configured, deleted.
transit = client.secrets.transit
transit.create_key(name="hvac", key_type="aes256-gcm96")
transit.create_key(name="hvac.derived", key_type="chacha20-poly1305", derived=True)
assert set(transit.list_keys()["data"]["keys"]) >= {"hvac", "hvac.derived"}
assert transit.read_key(name="hvac")["data"]["latest_version"] == 1
first = transit.encrypt_data(name="hvac", plaintext=text(b"one"))["data"]["ciphertext"]
transit.rotate_key(name="hvac")
second = transit.encrypt_data(name="hvac", plaintext=text(b"two"))["data"]["ciphertext"]
assert (first[:9], second[:9]) == ("vault:v1:", "vault:v2:")
for ciphertext, plaintext in ((first, b"one"), (second, b"two")):
    assert transit.decrypt_data(name="hvac", ciphertext=ciphertext)["data"]["plaintext"] == text(plaintext)
again = transit.rewrap_data(name="hvac", ciphertext=first)["data"]["ciphertext"]
assert again.startswith("vault:v2:")
batch = transit.encrypt_data(name="hvac", batch_input=[{"plaintext": text(b"a")}, {"plaintext": text(b"b")}])
assert len(batch["data"]["batch_results"]) == 2
context = text(b"bucket/object")
bound = transit.encrypt_data(name="hvac.derived", plaintext=text(b"x"), context=context)["data"]["ciphertext"]
assert transit.decrypt_data(name="hvac.derived", ciphertext=bound, context=context)["data"]["plaintext"] == text(b"x")
refused(InvalidRequest, transit.decrypt_data, name="hvac.derived", ciphertext=bound, context=text(b"other"))
data = transit.generate_data_key(name="hvac", key_type="plaintext")["data"]
assert transit.decrypt_data(name="hvac", ciphertext=data["ciphertext"])["data"]["plaintext"] == data["plaintext"]
hmac = transit.generate_hmac(name="hvac", hash_input=text(b"m"))["data"]["hmac"]
assert transit.verify_signed_data(name="hvac", hash_input=text(b"m"), hmac=hmac)["data"]["valid"] is True
refused(InvalidRequest, transit.encrypt_data, name="none", plaintext=text(b"x"))
refused(InvalidPath, transit.read_key, name="none")
refused(InvalidRequest, transit.delete_key, name="hvac")
transit.update_key_configuration(name="hvac", deletion_allowed=True)
transit.delete_key(name="hvac")
refused(InvalidPath, transit.read_key, name="hvac")

# The key/value engine.
kv = client.secrets.kv.v2
path = "hvac/db"
assert kv.create_or_update_secret(path=path, secret={"user": "one"}, cas=0)["data"]["version"] == 1
refused(InvalidRequest, kv.create_or_update_secret, path=path, secret={"user": "two"}, cas=0)
assert kv.create_or_update_secret(path=path, secret={"user": "two"}, cas=1)["data"]["version"] == 2
assert kv.read_secret_version(path=path, raise_on_deleted_version=True)["data"]["data"] == {"user": "two"}
first = kv.read_secret_version(path=path, version=1, raise_on_deleted_version=True)
assert first["data"]["data"] == {"user": "one"}
assert kv.list_secrets(path="hvac")["data"]["keys"] == ["db"]
assert kv.read_secret_metadata(path=path)["data"]["current_version"] == 2
kv.delete_latest_version_of_secret(path=path)
refused(InvalidPath, kv.read_secret_version, path=path, raise_on_deleted_version=True)
kv.undelete_secret_versions(path=path, versions=[2])
kv.destroy_secret_versions(path=path, versions=[1])
versions = kv.read_secret_metadata(path=path)["data"]["versions"]
assert versions["1"]["destroyed"] and not versions["2"]["destroyed"]
kv.delete_metadata_and_all_versions(path=path)
refused(InvalidPath, kv.read_secret_metadata, path=path)

# A session.
session = hvac.Client(url=url, verify=ca)
session.auth.approle.login(role_id=role, secret_id=secret)
assert session.is_authenticated() and session.lookup_token()["data"]["ttl"] > 0
session.auth.token.renew_self()
session.auth.token.revoke_self()
refused(Forbidden, session.secrets.transit.read_key, name="hvac.derived")
refused(Forbidden, hvac.Client(url=url, token="wrong", verify=ca).secrets.transit.read_key, name="hvac.derived")
print("hvac works")
