"""A collector of traces: OTLP over HTTP, decoded by descriptors that protoc makes of the supervisor's own .proto."""

import http.server
import importlib
import subprocess
import sys
import tempfile
import threading

import harness


def descriptors():
    folder = tempfile.mkdtemp(prefix="bh-otlp-")
    subprocess.run(["protoc", f"-I{harness.SOURCE / 'proto'}", f"--python_out={folder}", "opentelemetry/trace.proto"], check=True)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("opentelemetry.trace_pb2")
    finally:
        sys.path.remove(folder)
        harness.shutil.rmtree(folder, ignore_errors=True)


class Collector:
    """Keeps the spans that came. `answers` are statuses for the next requests, then 200; with `hold` set requests are read and not answered."""

    def __init__(self, pb):
        self.pb, self.spans, self.resources, self.requests, self.answers = pb, [], [], [], []
        self.retry_after, self.rejected = None, 0
        self.hold = threading.Event()
        self.released = threading.Event()
        self._changed = threading.Condition()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.hold.is_set():
                    collector.released.wait(60 * harness.SLOW)
                status, answer = collector.take(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                if status != 200 and collector.retry_after is not None:
                    self.send_header("Retry-After", str(collector.retry_after))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # the supervisor may hang up
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, headers, body):
        with self._changed:
            status = self.answers.pop(0) if self.answers else 200
            self.requests.append((path, {name.lower(): value for name, value in headers.items()}, status))
            answer = b""
            if status == 200:
                request = self.pb.ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    self.resources.append(attributes(resource.resource))
                    for scope in resource.scope_spans:
                        self.spans += scope.spans
                if self.rejected:
                    told = self.pb.ExportTraceServiceResponse()
                    told.partial_success.rejected_spans = self.rejected
                    answer = told.SerializeToString()
            self._changed.notify_all()
            return status, answer

    def wait_for(self, condition, what, within=harness.CONVERGE_TIMEOUT_S):
        """The first true value of condition(spans)."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.spans), within), f"not within {within} s: {what}; spans: {[s.name for s in self.spans]}"
            return condition(self.spans)

    def span(self, name, **wanted):
        """The one span of that name with these attributes ('.' written as '__')."""
        def found(spans):
            return [s for s in spans if s.name == name and all(attributes(s).get(k.replace("__", ".")) == v for k, v in wanted.items())]
        return self.wait_for(found, f"a span {name} {wanted}")[0]

    def stop(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


def attributes(message):
    return {a.key: a.value.string_value if a.value.WhichOneof("value") == "string_value" else a.value.int_value for a in message.attributes}
