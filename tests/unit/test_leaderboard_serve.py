"""The served page of a leaderboard: this machine alone, two paths, and new runs."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recbole_dtn.cli.leaderboard_options import SERVE
from recbole_dtn.cli.leaderboard_plan import plan_of
from recbole_dtn.cli.leaderboard_results import found_of
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.plan import BoardPlan, ChosenRow, RowTuning
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.remake import Remade, of_folder
from recbole_dtn.leaderboard.serve import BoardServer
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.record.record import RunRecord, write_record
from recbole_dtn.tuning.trial import Trial

Runs = Callable[..., list[RunRecord]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def server(folder: Path) -> Iterator[BoardServer]:
    known = Recorded()
    with BoardServer(lambda: of_folder(folder, known), "films") as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def get(server: BoardServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_the_page_follows_the_runs(server: BoardServer, folder: Path, board_runs: Runs) -> None:
    assert get(server, "/version") == (200, "")
    assert "No run has ended yet" in get(server, "/")[1]
    versions = [""]
    for model in ("DTN", "PLE"):
        for run in board_runs(model, 0.7, range(2)):
            write_record(run, folder / "films" / model / run.run_id)
        status, version = get(server, "/version")
        assert status == 200
        assert version not in versions
        versions.append(version)
        text = get(server, "/")[1]
        assert f'data-version="{version}"' in text
        assert f">{model}</button>" in text
        assert get(server, "/version")[1] == version
    assert get(server, "/", f"localhost:{server.server_port}")[0] == 200


def test_before_the_first_run_the_trials_are_shown() -> None:
    trial = Trial(number=0, state="complete", params={"optimizer.lr": 0.004}, value=0.71)
    tuning = RowTuning(study="s", wanted=3, epochs=2, metric="mean_auc", higher=True, trials=[trial], best=0)
    plan = BoardPlan(
        rows=[ChosenRow(dataset="films", name="DTN", tuning=tuning), ChosenRow(dataset="films", name="PLE")]
    )
    with BoardServer(lambda: Remade([], {}, "b", plan=plan), "b") as server:
        version, page = server.current()
    assert version == ""
    assert "No run has ended yet" in page
    assert "0.7100" in page
    assert '<meta http-equiv="refresh"' in page


def test_a_board_that_has_chosen_nothing_yet_has_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("b.yaml")
    file.write_text("datasets: [ml-100k]\nmodels: [MMoE]\ntune: {trials: 2}\n")
    plan = plan_of(SERVE.parse([]), file)
    assert found_of(plan, None, file, Path("out"), begun=False)() == Remade([], {}, "b")
    with pytest.raises(UsageError, match="`leaderboard run` writes it"):
        found_of(plan, None, file, Path("out"))()


def test_only_the_served_page_may_ask_its_server(board_runs: Runs) -> None:
    records = board_runs("DTN", 0.7, [1])
    file, served = (board_page([summarise(records)], records, "b", version=version) for version in ("", "0123"))
    assert ("fetch(" in file, "connect-src" in file) == (False, False)
    assert ("fetch(" in served, "connect-src 'self'" in served) == (True, True)


@pytest.mark.parametrize(
    "path", ["/../runs", "/runs", "//etc/passwd", "/%2e%2e/", "/version/..", "/?x=1", "/record.json"]
)
def test_there_is_no_path_to_a_file(server: BoardServer, path: str) -> None:
    assert get(server, path) == (404, "there is / and /version\n")


def test_another_host_and_another_method_get_nothing(server: BoardServer) -> None:
    for host in ("example.com", f"example.com:{server.server_port}", "127.0.0.1:1", ""):
        assert get(server, "/", host)[0] == 403
    assert get(server, "/", method="POST")[0] == 501
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken(server: BoardServer, folder: Path) -> None:
    with pytest.raises(UsageError, match=f"--port: {server.server_port} cannot be used"):
        BoardServer(lambda: of_folder(folder), "films", server.server_port)


def test_a_file_that_cannot_be_used_is_told_in_the_browser(folder: Path, tmp_path: Path, board_runs: Runs) -> None:
    for run in board_runs("DTN", 0.7, range(2)):
        write_record(run, folder / "films" / "DTN" / run.run_id)
    damaged = tmp_path / "films.statistics.json"
    damaged.write_text("{]")
    known = Recorded()
    with BoardServer(lambda: of_folder(folder, known), "films", output=tmp_path) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        status, text = get(started, "/")
        assert (status, "films.statistics.json" in text) == (500, True)
        damaged.unlink()
        assert get(started, "/")[0] == 200
        started.shutdown()
        thread.join()
