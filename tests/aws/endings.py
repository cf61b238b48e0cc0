"""Runs that do not come to their own end: somebody ends them, or their worker is killed."""

import os
import signal

from cloud import eventually, require
from gate import processes


def lives(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def play_cancel(cloud, check, ask, transcript, pids):
    """What runs detached is ended on its hosts by workers that are sent to do so."""
    run = ask(cloud, "forever", "first")
    states = lambda: [state for state, _ in check.states(run).values()]
    eventually("all of it runs", lambda: states() == ["running"] * 32 and len(pids.read_text().split()) == 32)
    said = transcript.sshjob("cancel", run)
    verdict = check.finish(run)
    require(verdict["state"] == "cancelled" and verdict["counts"] == {"cancelled": 32}, f"cancelled: {verdict} {said}")
    sent = [event for event in cloud.gate.events if run.encode() in event and b'"cancel"' in event]
    require(sent, f"no worker was sent to cancel: {said}")
    started = [int(pid) for pid in pids.read_text().split()]
    eventually("nothing of it runs on its hosts", lambda: not any(map(lives, started)), 30)
    print(f"ok cancel: {verdict['counts']}, by {len(sent)} orders")


def play_kill(cloud, check, ask):
    """A worker that is killed in the middle of a batch: another one tells what is lost, and starts nothing again."""
    # Nobody sees that it is dead; its claim ends with its time, which is short here.
    name = cloud.outputs["Worker"]
    cloud.functions.update_function_configuration(FunctionName=name, Timeout=90)
    run = ask(cloud, "halves", "first")

    def is_in_the_middle():
        states = {state for state, _ in check.states(run).values()}
        return {"running", "succeeded"} <= states and "pending" not in states and len(check.states(run)) == 32

    eventually("half of the batch is done", is_in_the_middle)
    before = check.states(run)
    killed = [pid for pid, env in processes() if env["AWS_LAMBDA_FUNCTION_NAME"] == name and env.get("AWS_ENDPOINT_URL") == cloud.gate.url]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    verdict = check.finish(run)
    cloud.functions.update_function_configuration(FunctionName=name, Timeout=900)
    after = check.states(run)
    done = {it for it, (state, _) in before.items() if state == "succeeded"}
    require(all(after[it][0] == "succeeded" for it in done), f"killed: {before} {after}")
    rest = {after[it] for it in after if it not in done}
    require(("lost", "worker") in rest and rest <= {("lost", "worker"), ("succeeded", "")}, f"killed: {rest}")
    require(sum(verdict["counts"].values()) == 32, f"killed: {verdict}")
    print(f"ok killed: {len(killed)} workers, {verdict['counts']}")
