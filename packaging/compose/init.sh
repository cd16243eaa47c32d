#!/bin/sh
# Makes what a key server needs, once: a certificate for it, an administrator, an identity for one object store, a config. What
# is there stays as it is.
set -eu
umask 077
config=/etc/claviger client=/client

# Makes a key and a certificate, and prints the identity. $1: their name, $@: options
make_identity() {
    name=$1
    shift
    claviger identity new --key "$name.key" --cert "$name.crt" --expiry 8760h --json "$@" |
        sed 's/.*"identity":"\([^"]*\)".*/\1/'
}

# The config comes last: without it nothing is complete, and all is made again.
if [ ! -e $config/config.yml ]; then
    rm -f $config/server.* $config/admin.* $client/client.*
    make_identity $config/server --ip 127.0.0.1 --dns localhost --dns claviger claviger >/dev/null
    admin=$(make_identity $config/admin admin)
    object_store=$(make_identity $client/client object-store)
    cp $config/server.crt $client/
    cat >$config/config.tmp <<END
# docs/configuration.md explains every setting.
address: 0.0.0.0:7373
admin: { identity: $admin }
tls: { key: $config/server.key, cert: $config/server.crt }
api: { /v1/ready: { skip_auth: true } }
policy:
  object-store:
    allow:
    - /v1/key/create/*
    - /v1/key/generate/*
    - /v1/key/decrypt/*
    - /v1/key/list/*
    - /v1/status
    identities: [$object_store]
keys:
- name: my-key
keystore: { fs: { path: /var/lib/claviger/keys } }
END
    # The directories stay root's but for that of the keys: the server only reads the others.
    busybox chown 1000:1000 $config/* $client/* /var/lib/claviger
    mv $config/config.tmp $config/config.yml
    echo "made certificates and identities, valid for one year, and $config/config.yml"
fi
