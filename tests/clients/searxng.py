"""A search engine with the JSON of SearXNG, in a thread.

with SearchEngine(hits) as search:
    search.url, search.queries
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]

HITS: Final[list[Json]] = [
    {"url": "https://en.example.org/llama", "title": "Llama", "content": "A llama weighs up to 200 kg.", "engine": "a"},
    {"url": "https://zoo.example.net/", "title": "The zoo", "content": "Llamas eat hay.", "engine": "b", "score": 0.5},
]


class SearchEngine:
    """Gives the same hits for each query. `queries` are the parameters of each search, in their order."""

    def __init__(self, hits: list[Json] = HITS) -> None:
        self.queries: list[dict[str, str]] = []
        queries = self.queries

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                queries.append(query)
                found = parts.path == "/search" and query.get("format") == "json"
                answer = {"query": query.get("q"), "number_of_results": 0, "results": hits, "answers": []}
                body = json.dumps(answer).encode()
                self.send_response(200 if found else 403)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Write nothing to standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}/search"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
