"""Reads `orrery.raw` with a foreign Kafka consumer and verifies each envelope with a foreign COSE library.

usage: verify_raw.py BOOTSTRAP KEYS.json COUNT

KEYS.json is the answer of `GET /api/v1/devices`. Prints one JSON object: how many envelopes verified, the devices seen,
and what was wrong. Ends as soon as COUNT envelopes were read, or after 60 s.
"""

import base64
import hashlib
import json
import sys
import time

from confluent_kafka import Consumer
from pycose.headers import KID
from pycose.keys import CoseKey
from pycose.messages import CoseMessage

DEVICE_ID, BOOT_ID, SEQUENCE, PREVIOUS = -70001, -70002, -70003, -70006


def main() -> None:
    bootstrap, keys_file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(keys_file, encoding="utf-8") as file:
        devices = json.load(file)["devices"]
    keys = {}
    for device in devices:
        for key in device["keys"]:
            text = key["cose_key"]
            keys[bytes.fromhex(key["kid"])] = CoseKey.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "foreign-verifier",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe(["orrery.raw"])
    verified, wrong, seen, last = 0, [], set(), {}
    deadline = time.monotonic() + 60
    while verified + len(wrong) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            wrong.append(str(message.error()))
            continue
        value = message.value()
        envelope = CoseMessage.decode(value)
        claims = {label: content for label, content in envelope.phdr.items() if isinstance(label, int)}
        headers = {name: content.decode() for name, content in message.headers()}
        envelope.key = keys[envelope.phdr[KID]]
        device, boot = claims[DEVICE_ID], claims[BOOT_ID]
        if not envelope.verify_signature():
            wrong.append(f"{device} {claims[SEQUENCE]}: signature")
        elif message.key().decode() != device:
            wrong.append(f"{device}: key {message.key()!r}")
        elif headers.get("ce_specversion") != "1.0" or "ce_id" not in headers:
            wrong.append(f"{device}: CloudEvents headers {headers}")
        elif (device, boot) in last and claims.get(PREVIOUS) != last[device, boot]:
            wrong.append(f"{device} {claims[SEQUENCE]}: the chain is broken")
        else:
            verified += 1
        seen.add(device)
        last[device, boot] = hashlib.sha256(value).digest()
    consumer.close()
    print(json.dumps({"verified": verified, "wrong": wrong[:10], "devices": sorted(seen)}))


main()
