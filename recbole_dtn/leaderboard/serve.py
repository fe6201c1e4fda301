"""The page of a leaderboard on this machine alone, made again whenever runs have ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from recbole_dtn.errors import RecBoleDTNError, UsageError
from recbole_dtn.leaderboard.fairness import board_rows
from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.page.tuning import tuning_page
from recbole_dtn.leaderboard.plan import BoardPlan, RowTuning
from recbole_dtn.leaderboard.remake import Remade
from recbole_dtn.leaderboard.statistics import by_dataset
from recbole_dtn.leaderboard.stored import Stored

__all__ = ["LOOPBACK", "BoardServer"]

LOOPBACK = "127.0.0.1"
AGAIN = 10
"""Seconds after which a page without runs is loaded again."""
NO_RUN = "No run has ended yet."


class BoardServer(ThreadingHTTPServer):
    """Serves the page at ``/``, and at ``/version`` what changes with it; nothing else, and no file.

    It listens on the loopback address alone, and answers no request that names another host: a site in the same
    browser that points a name of its own at this address gets nothing.

    Args:
        find: reads the records anew. title: of the page. port: 0 chooses a free one.
        output: folder of the leaderboard's statistics, speed and failures.

    Raises:
        UsageError: for a port that is taken.
    """

    daemon_threads = True

    def __init__(self, find: Callable[[], Remade], title: str, port: int = 0, *, output: Path | None = None) -> None:
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UsageError(f"--port: {port} cannot be used ({error.strerror}); 0 chooses a free one") from error
        self.find, self.title = find, title
        self.output = output
        self.lock = Lock()
        self.made: tuple[str, str] = ("", "")

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def current(self) -> tuple[str, str]:
        """The version and the page of the records as they are now. The page is made only where they have changed.

        Before the first run has ended, it has the trials.
        """
        with self.lock:
            found = self.find()
            if not found.records:
                return "", tuning_page(self.title, _trials(found.plan), [NO_RUN], reload=AGAIN)
            runs = "\n".join(f"{run.dataset} {run.run_id} {run.settings_digest}" for run in found.records)
            stored = Stored.read(self.title, self.output)
            if found.beside is not None:
                stored = stored.or_else(Stored.read(found.name, found.beside))
            shown = f"{runs}\n{stored}\n{found.plan}\n{found.design}\n{found.names}".encode()
            version = hashlib.sha256(shown).hexdigest()[:16]
            if version != self.made[0]:
                rows = board_rows(found.records, found.names, found.design, stored, found.plan)
                groups = list(by_dataset(rows).values())
                self.made = version, board_page(groups, found.records, self.title, version=version, stored=stored)
            return self.made


def _trials(plan: BoardPlan | None) -> list[tuple[str, RowTuning]]:
    """The trials so far, by row, and by data set where there are several."""
    rows = plan.rows if plan is not None else []
    several = len({row.dataset for row in rows}) > 1
    return [(f"{row.name} ({row.dataset})" if several else row.name, row.tuning)
            for row in rows if row.tuning is not None and row.tuning.trials]  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: BoardServer

    def do_GET(self) -> None:
        """Answer one request."""
        hosts = {f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")}
        if self.headers.get("Host") not in hosts:
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", "this page is for this machine alone\n")
        if self.path not in ("/", "/version"):
            return self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /version\n")
        try:
            version, page = self.server.current()
        except RecBoleDTNError as error:  # a file beside the tables that cannot be used
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"error: {error}\n")
        if self.path == "/version":
            return self._send(HTTPStatus.OK, "text/plain", version)
        return self._send(HTTPStatus.OK, "text/html", page)

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not told."""
