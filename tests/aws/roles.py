"""Holds the template's roles to account: without any of what they grant something fails and says why, and beyond it
nothing is allowed."""

import copy
import json
import time

import botocore.exceptions
from cloud import Failed, eventually, require
from gate import environments
from stack import counted

# What no run can be seen to lack here, and why.
UNSEEN = {
    "logs:CreateLogStream": "the emulator keeps logs by itself",
    "logs:PutLogEvents": "the emulator keeps logs by itself",
    "sqs:SendMessage": "the emulator delivers failures by itself",
    "trigger s3:ListBucket blobs/*": "only a write that clashes with another asks for an absent script",
    "trigger s3:ListBucket active/*": "a mark that is read exists, but for a race",
    "worker s3:ListBucket blobs/*": "a run has its script, but for damage",
    "worker s3:PutObject runs/*/trouble.json": "only a worker that nobody answers writes it",
}


def listed(one):
    return one if isinstance(one, list) else [one]


def grants(policy):
    """Each thing that `policy` grants: statement, action, and resource or prefix."""
    for index, statement in enumerate(policy["Statement"]):
        if statement["Effect"] == "Deny":
            continue
        for action in listed(statement["Action"]):
            where = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix") or statement["Resource"]
            for place in listed(where):
                yield index, action, place


def without(policy, index, action, place):
    """`policy` less one of its grants."""
    policy = copy.deepcopy(policy)
    statement = policy["Statement"].pop(index)
    pairs = [(one, at) for _, one, at in grants(dict(Statement=[statement])) if (one, at) != (action, place)]
    for one, at in pairs:
        rest = dict(statement, Sid=f"Rest{len(policy['Statement'])}", Action=one)
        if "Condition" in statement:
            rest["Condition"] = dict(StringLike={"s3:prefix": [at]})
        else:
            rest["Resource"] = at
        policy["Statement"].append(rest)
    return policy


class Probe:
    """Runs of a small job, to see what they lack."""

    def __init__(self, cloud, topic):
        self.cloud, self.topic, self.count = cloud, topic, 0
        self.instance = next(iter(cloud.launch(["127.0.60.9"], dict(Environment="Probe"))))
        self.secret("probe")
        self.job("probe")
        self.job("keyless", key="absent.pem")
        self.job("scriptless", script="script: scripts/absent.sh")

    def secret(self, name):
        """Makes a parameter that the worker may read."""
        place = self.cloud.outputs["SecretPlace"].removeprefix("ssm:")
        self.cloud.client("ssm").put_parameter(Name=place + name, Value="x", Type="SecureString")

    def job(self, name, script="script: scripts/probe.sh", key="dev.pem", secret="probe"):
        where = f"secrets: {{ TOKEN: '{self.cloud.outputs['SecretPlace']}{secret}' }}\nkey: {self.cloud.outputs['KeyPlace']}{key}\ntargets: {{ tags: {{ Environment: Probe }} }}\n"
        tell = f"notify: {{ on: [success, failure], webhook: '{self.cloud.gate.url}/hook', sns: '{self.topic}' }}\n"
        self.cloud.put(f"jobs/{name}.yaml", f"{where}{tell}{script}\n")

    def run(self, job="probe"):
        """Runs the job as far as it goes; what the trigger answered."""
        self.count += 1
        return json.dumps(self.cloud.trigger({"job": job, "id": f"probe-{self.count}"})[0])

    def look_for(self, role, wanted, act, again):
        """Acts until the function says all of `wanted` in its answer or its log."""
        since, said = time.time() - 1, [act()]

        def seen():
            text = "\n".join(said) + self.cloud.logged(role, since).replace('\\"', '"')
            # In a log line what stands in a text is escaped, and so it is in the answer.
            if all(it in text for it in wanted):
                return True
            time.sleep(0.5)
            said.append(again())
            return False

        eventually(f"{role}: {wanted}: {said[-1]}", seen)
        # An alarm hears of it: the function has failed, or its log says so in the words that are counted.
        alarmed = lambda: counted(self.cloud, role, "Failures", since) or '"refused"' in self.cloud.logged(role, since)
        eventually(f"an alarm hears of the {role} that says {wanted}", alarmed, 30)

    def without(self, role, action, place):
        """What to do that needs `action` at `place`, and what is said where it is not allowed."""
        tick = lambda: json.dumps(self.cloud.trigger({})[0])
        store, put = self.cloud.store, self.cloud.put
        at = place if place.startswith("arn:") else f"arn:aws:s3:::{store}/{place}"
        start = at.split("*")[0]
        wanted = [f"`{action}` on `{start}" if action != "s3:ListBucket" else f"`s3:GetObject` on `{start}"]
        act = self.run
        fresh = f"#!/bin/sh\necho {self.count} {time.time()}\n"
        last = place.rstrip("/*").rsplit("/", 1)[-1]
        if action in ("ec2:DescribeInstances", "lambda:InvokeFunction", "sns:Publish", "ssm:GetParameter"):
            wanted = [f"`{action}` on `"]
            if action == "ssm:GetParameter":
                # One that no worker has in mind.
                self.secret(f"probe-{self.count}")
                self.job("probe", secret=f"probe-{self.count}")
        elif action == "s3:PutObject" and last == "blobs":
            put("scripts/probe.sh", fresh)
        elif action == "s3:ListBucket":
            if "keys/" in place:
                wanted, act = ["absent.pem` may not be read", "InvalidKey"], lambda: self.run("keyless")
            elif last in ("jobs", "active", "outbox"):
                wanted = [f"`s3:ListBucket` on `arn:aws:s3:::{store}`"]
                act = self.run if last == "jobs" else tick
            elif last == "scripts":
                act = lambda: self.run("scriptless")
            elif last == "sshjob.yaml":
                self.cloud.s3.delete_object(Bucket=store, Key="sshjob.yaml")
            elif last == "state":
                self.cloud.s3.delete_object(Bucket=store, Key="state/cursor.json")
                act = tick
        if last == "trust" and action != "s3:GetObject":
            for key in self.cloud.keys("trust/"):
                self.cloud.s3.delete_object(Bucket=store, Key=key)
        # What is to be told is told at the end of a run, or at a tick.
        self.look_for(role, wanted, act, tick)
        return wanted[0]


def play_roles(cloud, topic, project):
    """Takes each grant away in turn; then asks for what was never granted."""
    cloud.s3.delete_object(Bucket=cloud.store, Key="jobs/minute.yaml")
    cloud.put("scripts/probe.sh", "#!/bin/sh\necho here\n")
    settings = (project / "sshjob.yaml").read_text()
    cloud.put("sshjob.yaml", settings)
    probe = Probe(cloud, topic)
    probe.run()
    eventually("the probe's run is told of", lambda: cloud.trigger({}) and cloud.gate.told)
    for role in ("trigger", "worker"):
        whole, unseen = cloud.policy(role), []
        for index, action, place in grants(whole):
            short = place.partition(":::")[2].partition("/")[2] or place
            if action in UNSEEN or f"{role} {action} {short}" in UNSEEN:
                unseen.append(f"{action} {short}")
                continue
            cloud.set_policy(role, without(whole, index, action, place))
            try:
                said = probe.without(role, action, place)
                print(f"ok roles: the {role} without {action} at {place.rsplit(':', 1)[-1]} says {said}", flush=True)
            except Failed as error:
                raise Failed(f"the {role} without {action} at {place}: {error}") from None
            finally:
                cloud.set_policy(role, whole)
                cloud.put("sshjob.yaml", settings)
        print(f"what the {role} may without that anybody could see it here: {', '.join(unseen)}")
    denied(cloud)


def denied(cloud):
    """What the functions may not do, asked for with their own credentials."""
    store, keys = cloud.store, cloud.keys_bucket
    cloud.s3.put_object(Bucket=keys, Key="other/x.pem", Body=b"x")
    cloud.client("ssm").put_parameter(Name="/other/x", Value="x", Type="SecureString")
    found = {env["AWS_LAMBDA_FUNCTION_NAME"]: env for env in environments().values() if env.get("AWS_ENDPOINT_URL") == cloud.gate.url}

    def client(role, service, url=None):
        env = found[cloud.outputs[role.capitalize()]]
        words = (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env.get("AWS_SESSION_TOKEN"))
        return cloud.client(service, *words, url=url or cloud.gate.url)

    trigger, worker = client("trigger", "s3"), client("worker", "s3")
    attempts = {
        "the trigger reads a key": lambda: trigger.get_object(Bucket=keys, Key="keys/dev.pem"),
        "the trigger lists keys": lambda: trigger.list_objects_v2(Bucket=keys, Prefix="keys/"),
        "the trigger writes a job": lambda: trigger.put_object(Bucket=store, Key="jobs/x.yaml", Body=b""),
        "the trigger writes a pin": lambda: trigger.put_object(Bucket=store, Key="trust/x", Body=b""),
        "the trigger removes a run": lambda: trigger.delete_object(Bucket=store, Key="runs/x"),
        "the trigger lists everything": lambda: trigger.list_objects_v2(Bucket=store),
        "the trigger runs itself": lambda: client("trigger", "lambda").invoke(FunctionName=cloud.outputs["Trigger"]),
        "the trigger stops instances": lambda: client("trigger", "ec2").stop_instances(InstanceIds=["i-1"]),
        "the worker describes instances": lambda: client("worker", "ec2").describe_instances(),
        "the worker runs the trigger": lambda: client("worker", "lambda").invoke(FunctionName=cloud.outputs["Trigger"]),
        "the worker reads another key": lambda: worker.get_object(Bucket=keys, Key="other/x.pem"),
        "the worker writes a key": lambda: worker.put_object(Bucket=keys, Key="keys/dev.pem", Body=b""),
        "the worker writes a job": lambda: worker.put_object(Bucket=store, Key="jobs/x.yaml", Body=b""),
        "the worker writes a script": lambda: worker.put_object(Bucket=store, Key="blobs/x", Body=b""),
        "the worker says what a run is": lambda: worker.put_object(Bucket=store, Key="runs/a/b/run.json", Body=b""),
        "the worker says how a run ended": lambda: worker.put_object(Bucket=store, Key="runs/a/b/result.json", Body=b""),
        "the worker plans": lambda: worker.put_object(Bucket=store, Key="runs/a/b/plan.json", Body=b""),
        "the worker says where a run goes": lambda: worker.put_object(Bucket=store, Key="runs/a/b/batches/0.targets.json", Body=b""),
        "the worker asks for a pause": lambda: worker.put_object(Bucket=store, Key="runs/a/b/control.json", Body=b""),
        "the worker reads another secret": lambda: client("worker", "ssm").get_parameter(Name="/other/x"),
        "the trigger reads a secret": lambda: client("trigger", "ssm").get_parameter(Name="/sshjob/token"),
        "the worker removes a run": lambda: worker.delete_object(Bucket=store, Key="runs/x"),
        "the worker lists everything": lambda: worker.list_objects_v2(Bucket=store),
        "the worker reads without TLS": lambda: client("worker", "s3", cloud.url).get_object(Bucket=keys, Key="keys/dev.pem"),
    }
    for prefix in ("jobs", "scripts", "state", "active", "outbox"):
        attempts[f"the worker reads {prefix}/"] = lambda at=f"{prefix}/x": worker.get_object(Bucket=store, Key=at)
    for what, attempt in attempts.items():
        try:
            attempt()
        except botocore.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            require(code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"), f"{what}: {error}")
            continue
        raise Failed(f"{what}, which it may not")
    require(worker.get_object(Bucket=keys, Key="keys/dev.pem")["Body"].read(), "the worker reads no key")
    print(f"ok roles: {len(attempts)} other things are denied")
