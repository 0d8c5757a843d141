"""Makes the test vectors anew: python -m tests.tlog.vectors > tests/tlog/cosignatures.json

Keys come from fixed seeds. ML-DSA-44 signatures are randomised (FIPS 204, hedged), so each run
makes other ones, all valid; the messages are what must not change.
"""

import json
import sys
from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from audit.witness.keys import WitnessKeys
from meshkit.tlog import (
    EMPTY_ROOT,
    ListHashes,
    VerifierKey,
    checkpoint_text,
    cosignature_message,
    format_note,
    leaf_hash,
    root_of,
    signature_line,
)

TIME = 1_763_788_800


def keys_of(number):
    ed25519 = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    mldsa44 = MLDSA44PrivateKey.from_seed_bytes(bytes([number + 100]) * 32)
    return WitnessKeys(f"witness.example/w{number}", ed25519, mldsa44)


def case(name, origin, size, root, extension=""):
    log = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = VerifierKey(origin, log.public_key().public_bytes_raw())
    text = checkpoint_text(origin, size, root) + extension
    one, two = keys_of(1), keys_of(2)
    return {
        "name": name,
        "checkpoint": text,
        "log_vkey": str(key),
        "time": TIME,
        "cosigners": [
            {
                "vkey": str(vkey),
                "seed": (bytes([n]) * 32 if vkey.kind == 4 else bytes([n + 100]) * 32).hex(),
                "message": b64encode(cosignature_message(vkey, text, TIME)).decode(),
            }
            for n, keys in ((1, one), (2, two))
            for vkey in keys.vkeys
        ],
        "note": format_note(text, signature_line(key, log.sign(text.encode())))
        + one.cosign(text, TIME)
        + two.cosign(text, TIME),
    }


def main():
    three = root_of(ListHashes([leaf_hash(b"%d" % number) for number in range(3)]), 3)
    told = {
        "about": "C2SP tlog-cosignature: each note is signed by its log and cosigned by two "
        "witnesses, each with an Ed25519 and an ML-DSA-44 key. A message is what a cosigner signs; "
        "a seed is the private key (Ed25519: RFC 8032; ML-DSA-44: FIPS 204, xi).",
        "cases": [
            case("empty", "example.org/log", 0, EMPTY_ROOT),
            case("three leaves 0 1 2", "example.org/log", 3, three),
            case("large", "example.org/log", 2**40 + 7, bytes(range(32))),
            case("extension line", "example.org/log", 3, three, "extra\n"),
            case("origin in UTF-8", "例.example/日志", 3, three),
            case("origin of 255 bytes", "o" * 255, 3, three),
        ],
    }
    sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
