"""What is no answer never becomes text; nothing answered is asked twice; nothing leaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from doubles import completion, table

from curate.errors import EndpointUnavailable, UserMistake
from curate.generate.rewrite import Rewrite

ROWS = table(*({"prompt": f"Question {number}?", "response": "Old answer."} for number in range(6)))


def stage(server, cache, **backend):
    settings = {
        "kind": "endpoint",
        "base_url": server.url,
        "model": "m",
        "revision": "r1",
        "timeout_seconds": 5,
        "max_retries": 2,
        **backend,
    }
    return Rewrite(backend=settings, task="self_answer", cache=str(cache))


def responses(server, cache, **backend):
    return stage(server, cache, **backend).load(cache)(ROWS).column("response").to_pylist()


def test_answers_come_back_in_row_order_with_their_lineage(server, tmp_path):
    server.script = lambda body, nth: f"About {body['messages'][-1]['content']}"
    made = stage(server, tmp_path).load(tmp_path)(ROWS).to_pylist()
    assert [row["response"] for row in made] == [f"About Question {number}?" for number in range(6)]
    last = made[5]
    assert last["text"] == "Question 5?\n\nAbout Question 5?"
    assert (last["parents"], last["parent_at"]) == ([ROWS.column("row_id")[5].as_py()], "00007:5")
    assert (last["source"], last["file"], last["line"], last["depth"], last["origin"]) == ("pool", "pool.jsonl", 6, 1, "rewrite")
    assert last["generator"] == "self_answer m@r1 stop"
    assert last["parent_text"] == "Question 5?\n\nOld answer."


def test_429_waits_as_told_and_500_is_tried_again(server, tmp_path):
    def script(body, nth):
        if "Question 2" in str(body) and nth == 1:
            return 429, {"Retry-After": "1"}, b'{"error": {"message": "slow down"}}'
        if "Question 4" in str(body) and nth == 1:
            return 500, {}, b"<html>boom</html>"
        return "Fine."

    server.script = script
    assert responses(server, tmp_path) == ["Fine."] * 6
    twice = [time for time, body in zip(server.times, server.bodies, strict=True) if "Question 2" in str(body)]
    assert len(twice) == 2 and twice[1] - twice[0] >= 0.9


@pytest.mark.parametrize(
    "bad",
    [
        (500, {}, b'{"error": {"message": "secret detail"}}'),
        (200, {"Content-Type": "text/html"}, b"<html>please log in</html>"),
        (200, {}, b'{"choices": ['),
        (200, {}, b'{"object": "error", "message": "overloaded"}'),
        (200, {}, b'{"choices": [{"text": "an answer of the old kind"}]}'),
        (200, {"cut": 20}, completion("half an answer")),
    ],
    ids=["500", "html", "broken json", "no choices", "wrong schema", "cut"],
)
def test_a_server_that_never_answers_properly_is_unavailable_and_its_words_are_no_text(server, tmp_path, bad):
    server.script = lambda body, nth: (bad[0], dict(bad[1]), bad[2]) if "Question 3" in str(body) else "Fine."
    with pytest.raises(EndpointUnavailable) as error:
        responses(server, tmp_path, max_retries=1)
    assert error.value.exit_code == 75 and "Question 3" not in str(error.value) and "secret" not in str(error.value)
    stored = [json.loads(path.read_text()) for path in tmp_path.glob("*/*.json")]
    assert all(response["text"] == "Fine." for response in stored)


def test_after_a_failure_only_what_is_missing_is_asked(server, tmp_path):
    server.script = lambda body, nth: (503, {}, b"") if "Question 5" in str(body) else "Fine."
    with pytest.raises(EndpointUnavailable):
        responses(server, tmp_path, max_concurrency=1, max_retries=0)
    server.bodies.clear()
    server.script = lambda body, nth: "Fine, later."
    assert responses(server, tmp_path) == ["Fine."] * 5 + ["Fine, later."]
    assert len(server.bodies) == 1
    server.bodies.clear()
    assert responses(server, tmp_path) == ["Fine."] * 5 + ["Fine, later."]
    assert server.bodies == []


@pytest.mark.parametrize("after", [3, 17, 31])
def test_killed_and_run_again_nothing_is_lost_and_only_what_was_in_flight_is_asked_twice(server, tmp_path, after):
    server.script = lambda body, nth: time.sleep(0.02) or f"About {body['messages'][-1]['content']}"
    prompts = [f"Question {number}?" for number in range(36)]
    script = f"""
from doubles import table
from curate.generate.rewrite import Rewrite
rows = table(*({{"prompt": prompt, "response": "Old."}} for prompt in {prompts!r}))
backend = {{"kind": "endpoint", "base_url": {server.url!r}, "model": "m", "revision": "r1", "max_concurrency": 4, "max_retries": 0}}
Rewrite(backend=backend, task="self_answer", cache={str(tmp_path)!r}).load(None)(rows)
"""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), str(here.parents[1])])}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as process:
        while len(server.bodies) < after and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL and len(server.bodies) < 36
    rows = table(*({"prompt": prompt, "response": "Old."} for prompt in prompts))
    made = stage(server, tmp_path, max_concurrency=4).load(tmp_path)(rows)
    assert made.column("response").to_pylist() == [f"About {prompt}" for prompt in prompts]
    asked = Counter(body["messages"][-1]["content"] for body in server.bodies)
    assert set(asked) == set(prompts) and sum(asked.values()) - 36 <= 4


def test_a_row_the_server_refuses_becomes_an_empty_row_with_its_reason(server, tmp_path):
    filtered = (200, {}, completion("", "content_filter"))
    server.script = lambda body, nth: (400, {}, b"{}") if "Question 1" in str(body) else filtered if "Question 2" in str(body) else "Fine."
    made = stage(server, tmp_path).load(tmp_path)(ROWS).to_pylist()
    assert [row["response"] for row in made] == ["Fine.", "", "", "Fine.", "Fine.", "Fine."]
    assert made[1]["generator"].endswith(" refused_http_400") and made[2]["generator"].endswith(" refused_content_filter")


def test_a_slow_server_is_given_up_after_the_time_out(server, tmp_path):
    server.script = lambda body, nth: time.sleep(1.0) or "Too late."
    with pytest.raises(EndpointUnavailable):
        responses(server, tmp_path, timeout_seconds=0.2, max_retries=0)
    assert not list(tmp_path.glob("*/*.json"))


def test_no_redirect_is_followed(server, tmp_path):
    server.script = lambda body, nth: (307, {"Location": "http://127.0.0.1:9/elsewhere"}, b"")
    with pytest.raises(UserMistake, match="307"):
        responses(server, tmp_path)


def test_the_key_comes_from_the_environment_and_is_written_nowhere(server, tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("TEST_ENDPOINT_KEY", "canary-key-81723")
    caplog.set_level("DEBUG")
    built = stage(server, tmp_path, api_key_env="TEST_ENDPOINT_KEY")
    made = built.load(tmp_path)(ROWS)
    assert {name.lower(): value for name, value in server.headers[0].items()}["authorization"] == "Bearer canary-key-81723"
    server.script = lambda body, nth: (401, {}, b"{}")
    with pytest.raises(UserMistake) as error:
        responses(server, tmp_path / "other", api_key_env="TEST_ENDPOINT_KEY")
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json")) + caplog.text + "".join(capfd.readouterr())
    written += str(made.to_pylist()) + str(error.value) + repr(built) + json.dumps(built.identity())
    assert "canary-key-81723" not in written
    monkeypatch.delenv("TEST_ENDPOINT_KEY")
    with pytest.raises(UserMistake, match="export TEST_ENDPOINT_KEY"):
        built.load(tmp_path)


def test_concurrency_and_pace_are_bounded(server, tmp_path):
    server.script = lambda body, nth: time.sleep(0.05) or "Fine."
    responses(server, tmp_path, max_concurrency=2)
    assert server.most_busy <= 2
    server.times.clear()
    responses(server, tmp_path / "paced", requests_per_second=20)
    assert max(server.times) - min(server.times) >= 0.2


def test_how_fast_and_where_is_no_part_of_the_identity(server, tmp_path):
    assert stage(server, tmp_path).identity() == stage(server, tmp_path, max_concurrency=1, timeout_seconds=9).identity()
    assert stage(server, tmp_path).identity() != stage(server, tmp_path, revision="r2").identity()
    assert "backend" in Rewrite.unfingerprinted
