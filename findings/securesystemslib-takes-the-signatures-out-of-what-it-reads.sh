#!/usr/bin/env bash
# securesystemslib 1.6.0: Envelope.from_dict() takes the signatures out of the dictionary that it reads.
#
# A signed manifest of a model is a DSSE envelope, JSON with a payload and signatures. A host or a board parses it, checks
# it with securesystemslib, and hands the same object on: to a mirror, a log, a second check with another set of keys.
# Envelope.from_dict(document) says what it returns and raises, and not that it changes `document`; Signature.from_dict(),
# which it calls, does say so. Afterwards each signature in the document is an empty object. What is written from it is an
# envelope that nobody can check, though the check before it passed, and reading it again raises KeyError. to_dict() of the
# envelope has all of them. Give from_dict() a copy, or keep the text.
#
# Seen with cryptography 50.0.2, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   before reading: keyid, sig in the document's signature
#   read, and checked by 1 key
#   after reading: nothing in the document's signature
#   read again: KeyError('sig')
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile securesystemslib==1.6.0 cryptography==50.0.2
cd "$folder"
venv/bin/python - <<'PY'
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner


def held(document):
    return ", ".join(sorted(document["signatures"][0])) or "nothing"


signer = CryptoSigner.generate_ed25519()
made = Envelope(b'{"model": "answers"}', "application/json", {})
made.sign(signer)
document = made.to_dict()
print(f"before reading: {held(document)} in the document's signature")
keys = Envelope.from_dict(document).verify([signer.public_key], threshold=1)
print(f"read, and checked by {len(keys)} key")
print(f"after reading: {held(document)} in the document's signature")
again = None
try:
    Envelope.from_dict(document)
except KeyError as error:
    again = error
print(f"read again: {again!r}")
assert len(keys) == 1
assert held(document) == "nothing" and again is not None, "the document is left as it is now"
PY
