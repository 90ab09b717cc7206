"""Rows typed by hand, and a chat server on loopback that answers as told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa

from curate.dataset import CANONICAL
from curate.ingest.canonical import row_id


def table(*rows: dict, **columns: list) -> pa.Table:
    """Raw rows of shard 00007: {"text": ...}, {"prompt": ..., "response": ...} or {"messages": [...], ...}; nominated."""
    full = []
    for position, row in enumerate(rows):
        messages, prompt, response = row.get("messages"), row.get("prompt"), row.get("response")
        text = row.get("text") or f"{prompt}\n\n{response}"
        full.append(
            {
                "row_id": row_id(messages, prompt, response, text),
                "shard": "00007",
                "position": position,
                "source": "pool",
                "file": "pool.jsonl",
                "line": position + 1,
                "messages": messages,
                "prompt": prompt,
                "response": response,
                "text": text,
            }
        )
    names = ("row_id", "source", "file", "line", "messages", "prompt", "response", "text")
    schema = pa.schema([*(CANONICAL.field(name) for name in names), ("shard", pa.string()), ("position", pa.int32())])
    made = pa.Table.from_pylist(full, schema=schema)
    for name, values in {"nominated": [True] * len(rows), **columns}.items():
        made = made.append_column(name, pa.array(values))
    return made


def completion(text: str, finish: str = "stop") -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}).encode()


class Server:
    """`script(body, nth)` says what the nth request with this body gets: text, or (status, headers, bytes)."""

    def __init__(self):
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.script = lambda body, nth: "An answer."
        self.busy = self.most_busy = 0
        seen: Counter[str] = Counter()
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = json.dumps(body["messages"])
                with lock:
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers))
                    server.times.append(time.monotonic())
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                    seen[said] += 1
                    nth = seen[said]
                answer = server.script(body, nth)
                with lock:
                    server.busy -= 1
                status, headers, content = (200, {}, completion(answer)) if isinstance(answer, str) else answer
                cut = headers.pop("cut", None)
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[:cut])
                self.close_connection = cut is not None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
