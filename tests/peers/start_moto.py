"""Starts moto, which answers like AWS; usage: start_moto.py --host ADDRESS --port PORT

What it answers is its own. Only how it finds things is another: every request looked at some 180 directories and at every member of
a class, and every question about a secret at all secrets that there are."""

import functools
import sys

import moto.backends
import moto.core.responses
from moto.secretsmanager.models import SecretsStore
from moto.server import main


def once(find):
    return functools.cache(lambda *args: list(find(*args)))


def by_name(look):
    """Secrets lie under their names: only ARNs, and parts of them, have to be searched for."""
    known = getattr(dict, look.__name__)
    return lambda self, key: look(self, key) if key.startswith("arn:") else known(self, key)


moto.backends.list_of_moto_modules = once(moto.backends.list_of_moto_modules)
moto.core.responses.method_names_from_class = once(moto.core.responses.method_names_from_class)
for name in ["__getitem__", "__contains__", "get"]:
    setattr(SecretsStore, name, by_name(getattr(SecretsStore, name)))

# It was not made for threads: a switch between looking for a name and taking it would make two creators of one secret
# succeed, which AWS never does. So a thread keeps running until it waits for something.
sys.setswitchinterval(3600)
main()
