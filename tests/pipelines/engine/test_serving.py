"""A run behind an address: what requests may hold, what is answered, and one real server."""

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.series.generate import sample_series, write_wide
from headwise.pipelines.engine.serving.options import ServeOptions, check
from headwise.pipelines.engine.serving.service import Service, Upload, safe_name
from headwise.tests.pipelines.engine.small_forecast import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    write_wide(sample_series(rows=300, channels=2), folder / "x.csv")
    pipelines.forecast.train(data=folder / "x.csv", run=folder / "run", **SMALL)
    return folder


@pytest.fixture(scope="module")
def service(folder) -> Service:
    return Service(headwise.open(folder / "run", "cpu"), max_items=3)


def values(reply) -> list[float]:
    return [row["forecast"] for row in json.loads(reply.rows)]


def test_files_and_rows_of_several_requests_are_answered_each_with_its_own(folder, service) -> None:
    content = (folder / "x.csv").read_bytes()
    expected = headwise.open(folder / "run", "cpu").predict(folder / "x.csv")
    rows = pl.read_csv(folder / "x.csv").to_dicts()
    replies = service.answer(
        [
            Upload(files=[("x.csv", content), ("../x.csv", content)]),
            Upload(files=[("bad.csv", b"a,b\n1,2\n")]),
            Upload(rows=rows),
            Upload(files=[("x.csv", content), ("bad.csv", b"a,b\n1,2\n")]),
            Upload(files=[("x.exe", content)]),
            Upload(files=[("x.csv", content)] * 4),
        ]
    )
    assert [reply.status for reply in replies] == [200, 400, 200, 200, 400, 413]
    assert values(replies[0]) == pytest.approx(expected["forecast"].to_list() * 2)
    assert values(replies[2]) == pytest.approx(expected["forecast"].to_list())
    assert {row["file"] for row in json.loads(replies[0].rows)} == {"x.csv"}
    assert {row["item"] for row in json.loads(replies[2].rows)} == {"rows"}
    assert replies[1].error == "bad.csv: there is no column 'sensor_0'; it has 'a', 'b'"
    assert [row["status"] for row in json.loads(replies[3].rows)][-1] == "error"
    assert replies[4].error.startswith("x.exe: unknown kind of file '.exe'")
    assert replies[5].error == "holds 4 items; 3 at most"


def test_rows_that_are_no_table_are_a_bad_request(service) -> None:
    (reply,) = service.answer([Upload(rows=[{"a": [1]}, {"a": {"b": 1}}])])
    assert reply.status == 400
    assert "\n" not in str(reply.error)


def test_items_outside_of_what_was_sent_are_refused(folder, service, monkeypatch) -> None:
    """A table or a manifest may name any file of the machine."""
    private = {"file": str(folder / "x.csv"), "id": "x"}
    monkeypatch.setattr(service.run.pipeline, "list_items", lambda options, spec: [private])
    (reply,) = service.answer([Upload(files=[("x.csv", b"a\n")])])
    assert (reply.status, reply.rows) == (400, "[]")
    assert "names files that were not sent" in reply.error


def test_names_of_files_lead_nowhere() -> None:
    assert safe_name("../../etc/passwd") == "passwd"
    assert safe_name("C:\\data\\x.csv") == "x.csv"
    assert safe_name(".bashrc") == "file.bashrc"
    assert safe_name("a\x1b[2J\0.csv") == "a_x1b[2J_x00.csv"
    assert safe_name("") == "file"
    assert len(safe_name("é" * 300 + ".csv").encode()) <= 120
    assert safe_name("é" * 300 + ".csv").endswith(".csv")


@pytest.mark.parametrize(
    "options", [{"port": 0}, {"max_megabytes": 0}, {"max_items": 0}, {"batch_wait": float("nan")}]
)
def test_options_out_of_range_are_refused(options) -> None:
    with pytest.raises(InputError, match="must be from"):
        check(ServeOptions(run="run", **options))


def request_of(body: bytes, headers: dict[str, str], query: str = "", chunk: int = 1000):
    requests = pytest.importorskip("starlette.requests")
    chunks = [body[k : k + chunk] for k in range(0, len(body), chunk)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": k < len(chunks) - 1}
        for k, part in enumerate(chunks)
    ]
    taken = iter(messages)

    async def receive():
        return next(taken)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    return requests.Request(scope, receive), taken


FORM = (
    b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\n1,\r\n\xff\r\n'
    b'--B\r\nContent-Disposition: form-data; name="g"; filename="b.csv"\r\n\r\n2\r\n--B--\r\n'
)
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=B"}


@pytest.mark.parametrize(
    ("body", "headers", "query", "expected"),
    [
        (FORM, FORM_TYPE, "", {"files": [("a.csv", b"1,\r\n\xff"), ("b.csv", b"2")]}),
        (b"abc", {"X-File-Name": "a%20b.csv"}, "", {"files": [("a b.csv", b"abc")]}),
        (b"abc", {"Content-Disposition": 'x; filename="c"'}, "", {"files": [("c", b"abc")]}),
        (b"abc", {}, "name=d.csv", {"files": [("d.csv", b"abc")]}),
        (b'[{"a": 1}]', {"Content-Type": "application/json"}, "", {"rows": [{"a": 1}]}),
        (b'{"rows": [{"a": 1}]}', {"Content-Type": "application/json"}, "", {"rows": [{"a": 1}]}),
    ],
)  # fmt: skip
def test_requests_hold_files_or_rows(body, headers, query, expected) -> None:
    request, _ = request_of(body, headers, query)
    from headwise.pipelines.engine.serving import http

    upload = asyncio.run(http.read_upload(request, 10_000, 5))
    assert upload == Upload(**expected)


@pytest.mark.parametrize(
    ("body", "headers", "error", "message"),
    [
        (b"x" * 20_000, {}, "TooLarge", "larger than"),
        (b"x", {"Content-Length": "20000"}, "TooLarge", "larger than"),
        (FORM, FORM_TYPE, "TooLarge", "2 files; 1 at most"),
        (b"", {}, "InputError", "empty"),
        (b"abc", {}, "InputError", "the file has no name"),
        (b"--B\r\nbroken", FORM_TYPE, "InputError", "form"),
        (b"abc", {"Content-Type": "multipart/form-data"}, "InputError", "form"),
        (b"[1", {"Content-Type": "application/json"}, "InputError", "no JSON"),
        (b"[" * 9_000, {"Content-Type": "application/json"}, "InputError", "no JSON"),
        (b"[1]", {"Content-Type": "application/json"}, "InputError", "list of objects"),
        (b"[1" + b"0" * 5000 + b"]", {"Content-Type": "application/json"}, "InputError", "no JSON"),
    ],
)
def test_bad_requests_are_one_line(body, headers, error, message) -> None:
    request, chunks = request_of(body, headers)
    from headwise.pipelines.engine.serving import http

    with pytest.raises(InputError, match=message) as caught:
        asyncio.run(http.read_upload(request, 10_000, 1))
    assert type(caught.value).__name__ == error
    assert "\n" not in str(caught.value)
    if len(body) > 10_000:
        assert next(chunks), "the rest of a large body is not read"


def test_only_the_name_of_this_machine_is_answered() -> None:
    pytest.importorskip("starlette")
    from headwise.pipelines.engine.serving import http

    for name, here in (("127.0.0.1:8000", 1), ("localhost", 1), ("[::1]:80", 1), ("evil.org", 0)):
        request, _ = request_of(b"", {"Host": name})
        assert http.is_addressed_here(request, "127.0.0.1") == bool(here), name
    assert http.is_addressed_here(request, "0.0.0.0")


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict]:
    try:
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.full
@pytest.mark.timeout(150)
def test_a_server_answers_real_requests(folder) -> None:
    # Not importorskip: Ray reads its settings when it is imported, also for later tests.
    if find_spec("ray") is None or find_spec("starlette") is None:
        pytest.skip("Ray Serve is not installed (extra ray)")
    pytest.importorskip("python_multipart")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--run", str(folder / "run"), "--port", str(port), "--max-megabytes", "1"]
    code = "from headwise.pipelines.engine.command_line import main; main()"
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            for line in server.stderr:  # type: ignore[union-attr]
                if url in line:
                    break
            with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
                assert json.load(response)["status"] == "ok"
            content = (folder / "x.csv").read_bytes()
            status, answer = post(
                f"{url}/predict?name=x.csv", content, {"Content-Type": "text/csv"}
            )
            expected = headwise.open(folder / "run", "cpu").predict(folder / "x.csv")
            assert status == 200
            forecasts = [row["forecast"] for row in answer["rows"]]
            assert forecasts == pytest.approx(expected["forecast"].to_list())
            json_type = {"Content-Type": "application/json"}
            rows = json.dumps(pl.read_csv(folder / "x.csv").to_dicts()).encode()
            assert post(f"{url}/predict", rows, json_type)[1]["rows"][0]["item"] == "rows"
            assert post(f"{url}/predict", FORM, FORM_TYPE)[0] == 400
            assert post(f"{url}/predict", b"[1", json_type)[0] == 400
            assert post(f"{url}/predict", b"x" * 2_000_000, json_type)[0] == 413
            assert post(f"{url}/other", b"x", json_type)[0] == 404
            assert post(f"{url}/predict", b"x", {"Host": "evil.org"})[0] == 421
        finally:
            server.terminate()
            begin = time.monotonic()
            server.wait(timeout=40)
    assert server.returncode == 0
    assert time.monotonic() - begin < 40
