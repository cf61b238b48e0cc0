"""Looks for what nobody may find: keys, secrets and passphrases anywhere, scripts and settings but where they belong."""

import base64
import fnmatch
import json

from cloud import require
from gate import environments

# Where the text of a script and what jobs set by `env` are kept.
PLACES = ("jobs/*", "scripts/*", "blobs/*", "runs/*/*/run.json")


def seed_of(key):
    """The 32 bytes that an Ed25519 key is made of, out of OpenSSH's file of it: they come twice, first by themselves."""
    body = base64.b64decode("".join(key.splitlines()[1:-1]))
    # The public half, then its length and that of the private one, which begins with the seed.
    start = body.rindex(b"\0\0\0\x40") + 4
    return body[start : start + 32]


def forms(secret):
    """A secret as it is, as hexadecimal, and in base64 whatever comes before and after it."""
    yield secret
    yield secret.hex().encode()
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + secret)
        # Less the characters that its neighbours have a part in.
        yield coded[(shift * 8 + 5) // 6 : (shift + len(secret)) * 8 // 6]


def everything(cloud):
    """What the account holds but for the keys, the parameters and the programs, by name."""
    versions = cloud.s3.get_paginator("list_object_versions").paginate(Bucket=cloud.store)
    for version in (it for page in versions for it in page.get("Versions", [])):
        name, number = version["Key"], version["VersionId"]
        yield name, cloud.s3.get_object(Bucket=cloud.store, Key=name, VersionId=number)["Body"].read()
    for group in (it["logGroupName"] for it in cloud.logs.describe_log_groups()["logGroups"]):
        pages = cloud.logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        yield group, "\n".join(event["message"] for page in pages for event in page.get("events", [])).encode()
    for name in (it["FunctionName"] for it in cloud.functions.list_functions()["Functions"]):
        yield f"the configuration of {name}", json.dumps(cloud.functions.get_function_configuration(FunctionName=name), default=str).encode()
    for number, env in enumerate(environments().values()):
        if env.get("AWS_ENDPOINT_URL") == cloud.gate.url:
            yield f"an environment of {env['AWS_LAMBDA_FUNCTION_NAME']} ({number})", json.dumps(env).encode()
    yield "events", b"\n".join(cloud.gate.events)
    yield "what people were told", b"\n".join(cloud.gate.told)
    queues = cloud.client("sqs", url=cloud.gate.url)
    while True:
        letters = queues.receive_message(QueueUrl=cloud.resources["DeadLetters"], MaxNumberOfMessages=10, VisibilityTimeout=600)
        if not letters.get("Messages"):
            break
        yield "dead letters", json.dumps(letters["Messages"]).encode()


def play_leaks(cloud, key, secrets, texts):
    """`secrets` and all of `key` are nowhere; `texts` are where the store keeps scripts and jobs, and nowhere else."""
    body = "".join(key.splitlines()[1:-1])
    hidden = [form for secret in secrets for form in forms(secret.encode())]
    hidden += [*forms(seed_of(key)), key.encode(), *(body[n : n + 40].encode() for n in range(0, len(body) - 40, 20))]
    found, kinds = 0, set()
    for name, content in everything(cloud):
        found += 1
        kinds.add(name.split("/")[0])
        leaks = [form for form in hidden if form in content]
        require(not leaks, f"secrets are in {name}: {leaks}")
        is_their_place = any(fnmatch.fnmatchcase(name, place) for place in PLACES)
        strays = [text for text in texts if text.encode() in content and not is_their_place]
        require(not strays, f"{strays} are in {name}")
    missing = {"runs", "jobs", "blobs", "trust", "events", "dead letters", "what people were told"} - kinds
    require(not missing and len(cloud.gate.events) > 10, f"nothing was looked at of {missing}")
    print(f"ok secrets: in none of {found} versions of objects, logs, environments, events and letters, in no form of {len(hidden)}")
