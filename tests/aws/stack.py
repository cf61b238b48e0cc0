"""What the template makes of an account, asked of its resources: an emulator that leaves out what it does not know says
that all is well."""

import json
import re

from awscli.customizations.cloudformation.yamlhelper import yaml_parse
from cloud import ROOT, require


def check_ages():
    """What is removed by age: the emulator leaves that out, so it is read off the template."""
    resources = yaml_parse((ROOT / "infra/template.yaml").read_text())["Resources"]
    rules = {name: {it["Id"]: it for it in resources[name]["Properties"]["LifecycleConfiguration"]["Rules"]} for name in ("StoreBucket", "KeyBucket")}
    for name, days in (("StoreBucket", 7), ("KeyBucket", 30)):
        rule = rules[name]["old-versions"]
        require((rule["Status"], rule["NoncurrentVersionExpiration"]["NoncurrentDays"]) == ("Enabled", days), f"{name}: {rule}")
    for name, prefix in (("old-runs", "runs/"), ("old-requests", "state/requests/")):
        rule = rules["StoreBucket"][name]
        require((rule["Prefix"], rule["ExpirationInDays"]) == (prefix, {"Ref": "RetentionDays"}), f"{name}: {rule}")
    # No age makes a script, a pinned host key or a private one useless.
    expired = [it["Prefix"] for found in rules.values() for it in found.values() if "ExpirationInDays" in it]
    require(sorted(expired) == ["runs/", "state/requests/"], f"expires: {expired}")


def check_stack(cloud, days):
    """The buckets, logs, queue, functions and alarms are as the template says."""
    s3, lambdas, logs = cloud.s3, cloud.functions, cloud.logs
    for bucket in (cloud.store, cloud.keys_bucket):
        rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        require(rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256", f"{bucket}: {rules}")
        require(s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled", f"{bucket} keeps no versions")
        closed = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        require(len(closed) == 4 and all(closed.values()), f"{bucket}: {closed}")
        statements = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
        require(any(it["Sid"] == "EncryptedConnectionsOnly" and it["Effect"] == "Deny" for it in statements), f"{bucket}: {statements}")
    check_ages()
    for role in ("trigger", "worker"):
        name = cloud.outputs[role.capitalize()]
        groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"]
        require([it.get("retentionInDays") for it in groups] == [days], f"{name}: {groups}")
        found = lambdas.get_function_configuration(FunctionName=name)
        shape = (found["Timeout"], found["MemorySize"], found["Runtime"])
        require(shape == ((300, 512, "provided.al2023") if role == "trigger" else (900, 256, "provided.al2023")), f"{name}: {shape}")
        events = lambdas.get_function_event_invoke_config(FunctionName=name, Qualifier="$LATEST")
        wanted = (2, 900) if role == "trigger" else (1, 300)
        require((events["MaximumRetryAttempts"], events["MaximumEventAgeInSeconds"]) == wanted, f"{name}: {events}")
        require(events["DestinationConfig"]["OnFailure"]["Destination"].endswith(cloud.resources["DeadLetters"].rsplit("/", 1)[-1]), f"{name}: {events}")
    queue = cloud.client("sqs", url=cloud.gate.url).get_queue_attributes(QueueUrl=cloud.resources["DeadLetters"], AttributeNames=["All"])
    require(queue["Attributes"].get("MessageRetentionPeriod") == "1209600", f"dead letters: {queue['Attributes']}")
    found = {it["AlarmName"]: it for it in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    alarms = {name: found.get(cloud.resources[name]) for name in (
        "TriggerErrors", "WorkerErrors", "TriggerThrottles", "WorkerThrottles", "DeadLettersWait", "Failures", "NoTick",
    )}
    for name, alarm in alarms.items():
        require(alarm and alarm["AlarmActions"] == [cloud.resources["AlarmTopic"]], f"{name}: {alarm}")
        above = "LessThanThreshold" if name == "NoTick" else "GreaterThanOrEqualToThreshold"
        missing = "breaching" if name == "NoTick" else "notBreaching"
        require((alarm["ComparisonOperator"], alarm["TreatMissingData"]) == (above, missing), f"{name}: {alarm}")
    filters = list(filters_of(cloud))
    counted = {(it["namespace"], it["metric"]) for it in filters}
    alarmed = {(alarms[name]["Namespace"], alarms[name]["MetricName"]) for name in ("Failures", "NoTick")}
    require(counted == alarmed and len(filters) == 3, f"what is counted: {filters}; what alarms go by: {alarmed}")
    schedule = cloud.client("scheduler").get_schedule(Name=cloud.resources["Tick"].rsplit("|", 1)[-1].rsplit("/", 1)[-1])
    require(schedule["ScheduleExpression"] == "rate(1 minute)" and schedule["State"] == "ENABLED", f"schedule: {schedule}")
    print(f"ok stack: 2 buckets, 2 functions, {len(alarms)} alarms, {len(filters)} filters of logs as the template says")


def filters_of(cloud):
    """The filters that count lines of logs: role, the event that they count, namespace and metric."""
    for role in ("trigger", "worker"):
        group = f"/aws/lambda/{cloud.outputs[role.capitalize()]}"
        for found in cloud.logs.describe_metric_filters(logGroupName=group)["metricFilters"]:
            # The emulator keeps filters and counts nothing; this is the one form of theirs that we use.
            event = re.fullmatch(r'\{ \$\.event = "([a-z]+)" \}', found["filterPattern"])[1]
            metric = found["metricTransformations"][0]
            yield dict(role=role, event=event, namespace=metric["metricNamespace"], metric=metric["metricName"])


def counted(cloud, role, metric, since=0):
    """How many lines of a function's log its filters count for `metric`."""
    events = [it["event"] for it in filters_of(cloud) if (it["role"], it["metric"]) == (role, metric)]
    count = 0
    for line in cloud.logged(role, since).splitlines():
        try:
            count += json.loads(line).get("event") in events
        except (ValueError, AttributeError):
            pass
    return count


def play_network(cloud):
    """The worker in subnets: a stack of its own, with the right to join them, which goes again."""
    vpc = cloud.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [cloud.ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{n}.0/24")["Subnet"]["SubnetId"] for n in (1, 2)]
    group = cloud.ec2.create_security_group(GroupName="workers", Description="workers", VpcId=vpc)["GroupId"]
    words = ("--stack", "inside", "--architecture", cloud.architecture, "--binaries", cloud.packed)
    cloud.deploy(*words, f"WorkerSubnets={','.join(subnets)}", f"WorkerSecurityGroups={group}")
    stacks = cloud.client("cloudformation")
    found = {it["LogicalResourceId"]: it["PhysicalResourceId"] for it in stacks.describe_stack_resources(StackName="inside")["StackResources"]}
    # Of a function's network the emulator knows nothing: what the worker is given is read off the template.
    resources = yaml_parse((ROOT / "infra/template.yaml").read_text())["Resources"]
    where = dict(SubnetIds={"Ref": "WorkerSubnets"}, SecurityGroupIds={"Ref": "WorkerSecurityGroups"})
    given = resources["Worker"]["Properties"]["VpcConfig"]["Fn::If"]
    require(given == ["InNetwork", where, {"Ref": "AWS::NoValue"}], f"worker: {given}")
    require("VpcConfig" not in resources["Trigger"]["Properties"], "the trigger is inside")
    allowed, denied = cloud.iam.get_role_policy(RoleName=found["WorkerRole"], PolicyName="network")["PolicyDocument"]["Statement"]
    require("ec2:CreateNetworkInterface" in allowed["Action"] and allowed["Effect"] == "Allow", f"network: {allowed}")
    # What Lambda itself may do as this role its code may not.
    own = denied["Condition"]["ArnEquals"]["lambda:SourceFunctionArn"]
    require(denied["Effect"] == "Deny" and denied["Action"] == allowed["Action"] and own.endswith(":function:inside-worker"), f"network: {denied}")
    said = cloud.deploy("--stack", "inside", "--remove")
    cloud.deploy(*said.splitlines()[-1].split()[1:])
    left = {it["Name"] for it in cloud.s3.list_buckets()["Buckets"]}
    require(not left & {found["StoreBucket"], found["KeyBucket"]}, f"left: {left}")
    print(f"ok network: the worker in {len(subnets)} subnets; its buckets are gone for good")
