"""What stands between the functions and the emulator: it ends their TLS, as it were, and is strict or out of order where
AWS is."""

import collections
import fnmatch
import http.client
import http.server
import pathlib
import re
import sys
import threading
import time

SIGNED = re.compile(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/")
DENIED = (
    '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>User: {} is not authorized to perform: '
    "s3:ListBucket on resource: \"arn:aws:s3:::{}\"</Message></Error>"
)


def processes():
    """The functions that run: process ids and environments."""
    for place in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            pairs = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if "AWS_LAMBDA_FUNCTION_NAME" in env and "AWS_LAMBDA_RUNTIME_API" in env:
            yield int(place.parent.name), env


def environments():
    """The environments of the functions that run, by their access keys."""
    return {env.get("AWS_ACCESS_KEY_ID"): env for _, env in processes()}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # A function that is over looks no more for what it has asked.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Gate:
    """Passes requests on to the emulator at `port`."""

    def __init__(self, port):
        self.port = port
        # What each function may list, as `bucket/pattern`, by its name: without that S3 tells of no object that it is absent.
        self.listable = {}
        self.known = {}
        # Given service and body, an answer in place of the emulator's: status and text.
        self.fault = lambda service, body: None
        # How often each service was asked, by function: what it costs.
        self.counts = collections.Counter()
        # What `POST /hook` was sent.
        self.told = []
        # What functions were sent.
        self.events = []
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer goes out at once, not when the next packet does.
            wbufsize = -1
            disable_nagle_algorithm = True

            def handle_request(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, text = gate.answer(self.command, self.path, self.headers, body)
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = dict((name.lower(), value) for name, value in headers).get("content-length")
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method, path, headers, body):
        if path == "/hook":
            self.told.append(body)
            return 200, [], b""
        key, service = (SIGNED.search(headers.get("Authorization", "")) or re.match("()()", "")).groups()
        if service and self.function(key):
            kind = "list" if method == "GET" and "list-type=2" in path else method.lower()
            self.counts[f"{self.function(key).rsplit('-', 1)[-1]} {service} {kind}"] += 1
        if service == "lambda" and path.endswith("/invocations"):
            self.events.append(body)
        fault = self.fault(service, body)
        if fault:
            return fault[0], [("Content-Type", "application/xml")], fault[1].encode()
        # A long invocation answers late; nothing else does.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in ("connection", "expect", "x-forwarded-proto"):
                    connection.putheader(name, value)
            connection.putheader("X-Forwarded-Proto", "https")
            connection.endheaders(body)
            answer = connection.getresponse()
            status, headers, text = answer.status, answer.getheaders(), answer.read()
        except OSError:
            return 502, [], b""
        finally:
            connection.close()
        if status == 404 and service == "s3" and method in ("GET", "HEAD"):
            name, place = self.function(key), path.split("?")[0].lstrip("/")
            allowed = self.listable.get(name, ["*"])
            if not any(fnmatch.fnmatchcase(place, pattern) for pattern in allowed):
                text = DENIED.format(name, place.split("/")[0]).encode()
                return 403, [("Content-Type", "application/xml")], text
        return status, headers, text

    def function(self, key):
        """The name of the function whose access key this is."""
        if key not in self.known:
            self.known.update({key: env["AWS_LAMBDA_FUNCTION_NAME"] for key, env in environments().items()})
        return self.known.get(key)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def out_of_order(seconds):
    """S3 that answers 503 for some seconds."""
    until = time.monotonic() + seconds
    slow = "<Error><Code>ServiceUnavailable</Code><Message>Reduce your request rate.</Message></Error>"
    return lambda service, _: (503, slow) if service == "s3" and time.monotonic() < until else None


def throttled(times):
    """EC2 that turns the first requests away."""
    left = [times]
    text = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors></Response>"

    def fault(service, body):
        if service == "ec2" and b"Action=DescribeInstances" in body and left[0] > 0:
            left[0] -= 1
            return 503, text
        return None

    return fault
