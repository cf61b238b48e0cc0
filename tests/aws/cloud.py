"""An account at MiniStack, with the functions in it as the template describes them."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import boto3
import botocore.config
from gate import Gate

REGION = "us-east-1"
STACK = "sshjob"
PATIENCE = 180
ROOT = pathlib.Path(__file__).resolve().parents[2]


class Failed(Exception):
    """What is not as it must be."""


def require(truth, what):
    if not truth:
        raise Failed(what)


def eventually(what, check, patience=PATIENCE):
    """What `check` gives once that is something."""
    deadline = time.monotonic() + patience
    while True:
        found = check()
        if found:
            return found
        require(time.monotonic() < deadline, f"not within {patience} s: {what}")
        time.sleep(0.3)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Cloud:
    """An account at MiniStack, where functions may do what their roles allow and no more. They reach it by a gate."""

    def __init__(self, folder, holds_to_roles=True):
        self.folder = folder
        self.store = "sshjob-store"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.gate = Gate(self.port)
        self.log = folder / "ministack.log"
        account = dict(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION=REGION, AWS_REGION=REGION)
        self.env = dict(os.environ, **account, AWS_ENDPOINT_URL=self.url)
        # Nothing of the machine's own leads anywhere else.
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            self.env.pop(name, None)
        self.tools = pathlib.Path(sys.executable).parent
        env = self.env | dict(AUTH=str(holds_to_roles).lower(), AWS_ENDPOINT_URL=self.gate.url, BIND_HOST="127.0.0.1")
        env |= dict(GATEWAY_PORT=str(self.port), STATE_DIR=str(folder / "state"), S3_DATA_DIR=str(folder / "s3"))
        with open(self.log, "wb") as log:
            command = [self.tools / "ministack"]
            self.process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.s3, self.ec2, self.functions = self.client("s3"), self.client("ec2"), self.client("lambda")
        self.iam, self.logs = self.client("iam"), self.client("logs")

        def is_up():
            require(self.process.poll() is None, f"MiniStack has ended: {self.log.read_text()[-2000:]}")
            try:
                self.s3.list_buckets()
                return True
            except Exception:
                return False

        eventually("MiniStack answers", is_up, 60)

    def client(self, name, key="test", secret="test", token=None, url=None):
        config = botocore.config.Config(retries=dict(max_attempts=3), read_timeout=300, s3=dict(addressing_style="path"))
        session = boto3.session.Session(key, secret, token, region_name=REGION)
        return session.client(name, endpoint_url=url or self.url, config=config)

    def deploy(self, *words):
        """Runs `infra/deploy`; returns what it said."""
        env = self.env | dict(PATH=f"{self.tools}:{os.environ.get('PATH', '')}")
        done = subprocess.run([ROOT / "infra/deploy", *words], env=env, capture_output=True, text=True)
        require(done.returncode == 0, f"infra/deploy {words}: {done.stdout}{done.stderr}")
        return done.stdout

    def deploy_functions(self, binaries, *words):
        """Deploys the stack with the functions of `binaries`, and reads what it consists of."""
        self.packed = self.folder / "binaries"
        self.packed.mkdir(exist_ok=True)
        for name in ("trigger", "worker"):
            # Half of a debug build is of use to a debugger alone.
            if not (shutil.which("strip") and subprocess.run(["strip", "-o", self.packed / name, binaries / name]).returncode == 0):
                shutil.copy(binaries / name, self.packed / name)
        self.architecture = "arm64" if os.uname().machine == "aarch64" else "x86_64"
        said = self.deploy("--stack", STACK, "--architecture", self.architecture, "--binaries", self.packed, *words)
        stacks = self.client("cloudformation")
        outputs = stacks.describe_stacks(StackName=STACK)["Stacks"][0]["Outputs"]
        self.outputs = {it["OutputKey"]: it["OutputValue"] for it in outputs}
        self.store, self.keys_bucket = self.outputs["StoreBucket"], self.outputs["KeyBucket"]
        self.resources = {
            it["LogicalResourceId"]: it["PhysicalResourceId"]
            for it in stacks.describe_stack_resources(StackName=STACK)["StackResources"]
        }
        self.name_sessions()
        self.tell_gate()
        return said

    def name_sessions(self):
        """`aws:PrincipalArn` is the ARN of a role at AWS, and that of its session here: the policy is told of both."""
        role = self.resources["WorkerRole"]
        policy = self.s3.get_bucket_policy(Bucket=self.keys_bucket)["Policy"]
        names = json.dumps([f"arn:aws:iam::000000000000:role/{role}", f"arn:aws:sts::000000000000:assumed-role/{role}/*"])
        for quoted in (f'"arn:aws:iam::000000000000:role/{role}"', f'["arn:aws:iam::000000000000:role/{role}"]'):
            policy = policy.replace(f'"aws:PrincipalArn": {quoted}', f'"aws:PrincipalArn": {names}')
        require("assumed-role" in policy, f"the policy of the keys: {policy}")
        self.s3.put_bucket_policy(Bucket=self.keys_bucket, Policy=policy.replace("ArnNotEquals", "ArnNotLike"))

    def administrator(self):
        """The variables of somebody who may do everything but what a bucket's own policy denies."""
        self.iam.create_user(UserName="ops")
        everything = dict(Version="2012-10-17", Statement=[dict(Effect="Allow", Action="*", Resource="*")])
        self.iam.put_user_policy(UserName="ops", PolicyName="all", PolicyDocument=json.dumps(everything))
        key = self.iam.create_access_key(UserName="ops")["AccessKey"]
        # The buckets are for encrypted connections only, as those by the gate are.
        return dict(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"], AWS_ENDPOINT_URL=self.gate.url)

    def policy(self, role):
        """The policy of `trigger` or `worker`, as it is at present."""
        name = self.resources[f"{role.capitalize()}Role"]
        return self.iam.get_role_policy(RoleName=name, PolicyName=role)["PolicyDocument"]

    def set_policy(self, role, policy):
        name = self.resources[f"{role.capitalize()}Role"]
        self.iam.put_role_policy(RoleName=name, PolicyName=role, PolicyDocument=json.dumps(policy))
        self.tell_gate()

    def tell_gate(self):
        """The emulator lets everybody know what is absent; S3 lets only those know who may list it."""
        for role in ("trigger", "worker"):
            listable = []
            for statement in self.policy(role)["Statement"]:
                if "s3:ListBucket" in statement["Action"]:
                    prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
                    bucket = statement["Resource"].rsplit(":", 1)[1]
                    listable += [f"{bucket}/{it}" for it in ([prefixes] if isinstance(prefixes, str) else prefixes)]
            self.gate.listable[self.outputs[role.capitalize()]] = listable

    def put(self, key, text):
        self.s3.put_object(Bucket=self.store, Key=key, Body=text.encode())

    def read(self, key):
        try:
            return json.loads(self.s3.get_object(Bucket=self.store, Key=key)["Body"].read())
        except self.s3.exceptions.NoSuchKey:
            return None

    def keys(self, prefix=""):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.store, Prefix=prefix)
        return [it["Key"] for page in pages for it in page.get("Contents", [])]

    def trigger(self, event):
        answer = self.functions.invoke(FunctionName=self.outputs["Trigger"], Payload=json.dumps(event))
        said = json.loads(answer["Payload"].read() or "null")
        return said, answer.get("FunctionError")

    def logged(self, role, since=0):
        """What a function has logged since a time, in seconds."""
        group = f"/aws/lambda/{self.outputs[role.capitalize()]}"
        pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=int(since * 1000))
        return "\n".join(event["message"] for page in pages for event in page.get("events", []))

    def launch(self, addresses, tags):
        vpc = self.ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="127.0.0.0/16")["Subnet"]["SubnetId"]
        marks = [dict(ResourceType="instance", Tags=[dict(Key=key, Value=value) for key, value in tags.items()])]
        ids = {}
        for address in addresses:
            made = self.ec2.run_instances(
                ImageId="ami-12345678", MinCount=1, MaxCount=1, SubnetId=subnet, PrivateIpAddress=address,
                TagSpecifications=marks,
            )
            ids[made["Instances"][0]["InstanceId"]] = address
        return ids

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.gate.stop()
