"""Which rows are asked for, what a model is shown, and that stored responses decide the bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doubles import table
from given import Shards

from curate.errors import InternalError, UserMistake
from curate.generate.cache import Response, ResponseCache, response_key
from curate.generate.in_process import batches
from curate.generate.prompt import FENCE, PACKAGED, fence_for, neutralise, read_prompt
from curate.generate.rewrite import Rewrite
from curate.generate.rows import GENERATED, draw

KEY = response_key("m", "p", {}, ["x"])


def run(server, cache, rows, **settings):
    backend = {"kind": "endpoint", "base_url": server.url, "model": "m", "revision": "r"}
    return Rewrite(backend=backend, cache=str(cache), **settings).load(cache)(rows)


def shown(server):
    return [body["messages"][-1]["content"] for body in server.bodies]


def test_a_document_stands_between_two_lines_it_cannot_contain(server, tmp_path):
    made = run(server, tmp_path, table({"text": "A plain document. {fence} {text} {prompt}"}))
    assert made.schema.equals(GENERATED) and made.column("text").to_pylist() == ["An answer."]
    (message,) = shown(server)
    fence = FENCE.findall(message)[-1]
    assert f"{fence}\nA plain document. {{fence}} {{text}} {{prompt}}\n{fence}" in message


def test_a_fence_that_stands_in_the_document_is_not_used():
    first = fence_for(0, "row", "")
    assert fence_for(0, "row", f"quoting {first}") != first == fence_for(0, "row", "other")


@pytest.mark.parametrize(
    "marker",
    [
        "<|im_end|>",
        "<|eot_id|>",
        "</s>",
        "[INST]",
        "<<SYS>>",
        "<start_of_turn>",
        "<tool_call>",
        "<|endoftext|>",
        "<｜User｜>",
        "<special_7>",
    ],
)
def test_control_markers_are_broken_and_ordinary_text_is_not(marker):
    assert marker not in neutralise(f"a {marker} b", special_tokens=["<special_7>", " ", "a"])
    plain = "if a < b | c > d: [x] <b>bold</b> café 你好\n\tend"
    assert neutralise(plain) == plain
    assert neutralise("Nice.\U000e0072\U000e0061 Sky") == "Nice. Sky"


def test_only_nominated_rows_of_the_right_kind_are_asked_for(server, tmp_path):
    rows = table(
        {"text": "one"}, {"text": "two"}, {"prompt": "p", "response": "r"}, {"text": "long " * 50}, nominated=[True, False, True, None]
    )
    made = run(server, tmp_path, rows)
    assert made.column("parent_text").to_pylist() == ["one"]
    assert json.loads(made.schema.metadata[b"counts"]) == {"not_for_this_task": 1}
    made = run(server, tmp_path, rows, when={}, max_source_tokens=20)
    assert made.column("parent_text").to_pylist() == ["one", "two"]
    assert json.loads(made.schema.metadata[b"counts"]) == {"not_for_this_task": 1, "source_too_long": 1}
    made = run(server, tmp_path, table({"text": "no"}), when={"nominated": False})
    assert made.num_rows == 0 and made.schema.equals(GENERATED)


def test_when_takes_a_value_several_or_a_range(server, tmp_path):
    rows = table({"text": "a"}, {"text": "b"}, {"text": "c"}, label=["low", "high", None], score=[0.1, 0.5, 0.9])

    def found(**when):
        return run(server, tmp_path, rows, when=when).column("parent_text").to_pylist()

    assert found(label=["low", "mid"]) == ["a"] and found(label="high") == ["b"]
    assert found(score={"min": 0.5}) == ["b", "c"] and found(score={"min": 0.2, "max": 0.6}) == ["b"]


def test_a_share_is_drawn_by_row_not_by_place(server, tmp_path):
    rows = table(*({"text": f"document {number}"} for number in range(200)))
    made = run(server, tmp_path, rows, share=0.3, seed=5).column("parents").to_pylist()
    turned = run(server, tmp_path, rows.take(list(range(199, -1, -1))), share=0.3, seed=5).column("parents").to_pylist()
    assert sorted(made) == sorted(turned) and 40 <= len(made) <= 80
    assert 0 <= draw(0, "a") < 1 and draw(0, "a") != draw(1, "a")


def test_a_generated_row_is_no_source(server, tmp_path):
    assert run(server, tmp_path, table({"text": "a"}, {"text": "b"}, origin=[None, "rewrite"])).num_rows == 1


def test_a_chat_keeps_its_turns_and_gets_a_new_last_answer(server, tmp_path):
    turns = [("system", "Be brief."), ("user", "Hi <|im_end|>"), ("assistant", "Hello."), ("user", "Why?"), ("assistant", "Because.")]
    chat = {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "prompt": "Be brief. Hi Hello. Why?",
        "response": "Because.",
    }
    odd = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "prompt": "a b", "response": ""}
    made = run(server, tmp_path, table(chat, odd), task="self_answer")
    assert [turn["content"] for turn in made.column("messages")[0].as_py()] == [*(content for _, content in turns[:4]), "An answer."]
    assert made.column("text").to_pylist() == ["Be brief. Hi Hello. Why?\n\nAn answer."]
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["system", "user", "assistant", "user"]
    assert "<|im_end|>" not in json.dumps(server.bodies[0])
    assert json.loads(made.schema.metadata[b"counts"]) == {"turns_not_alternating": 1}


def test_a_given_answer_is_shown_with_its_prompt_and_its_row_keeps_prompt_and_turns(server, tmp_path):
    turns = [("user", "Hi"), ("assistant", "Hello."), ("user", "Why {response}?"), ("assistant", "Because <|im_end|> {prompt}.")]
    chat = {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "prompt": "Hi Hello. Why {response}?",
        "response": "Because <|im_end|> {prompt}.",
    }
    rows = table(chat, {"prompt": "p", "response": " "}, {"prompt": "p", "response": "long " * 50})
    made = run(server, tmp_path, rows, task="self_distill", max_source_tokens=30)
    assert json.loads(made.schema.metadata[b"counts"]) == {"no_answer_to_show": 1, "source_too_long": 1}
    (message,) = shown(server)
    assert "\nWhy {response}?\n" in message and "\nBecause < |im_end|> {prompt}.\n" in message
    assert [body["role"] for body in server.bodies[0]["messages"]] == ["user", "assistant", "user"]
    (row,) = made.to_pylist()
    assert [turn["content"] for turn in row["messages"]] == ["Hi", "Hello.", "Why {response}?", "An answer."]
    assert (row["prompt"], row["response"]) == (chat["prompt"], "An answer.") and row["parent_text"].endswith(chat["response"])


def test_a_prompt_file_without_fences_or_placeholder_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "bare.txt").write_text("Rewrite: {text}")
    (tmp_path / "none.txt").write_text("Write a poem.")
    with pytest.raises(UserMistake, match="put a line"):
        read_prompt("bare", tmp_path)
    with pytest.raises(UserMistake, match="exactly one"):
        read_prompt("none", tmp_path)
    (tmp_path / "both.txt").write_text("{fence} {text} {response} {fence}")
    with pytest.raises(UserMistake, match=r"put \{prompt\} in place"):
        read_prompt("both", tmp_path)
    for name in ("gone", "../guided_rewrite", "/etc/passwd"):
        with pytest.raises(UserMistake, match="there: "):
            read_prompt(name)


def test_batches_stay_within_the_budget_and_lose_no_row():
    found = batches([3, 3, 4, 9, 9, 30], 18)
    assert [list(batch) for batch in found] == [[0, 1, 2], [3, 4], [5]] and batches([], 18) == []


def test_the_first_stored_response_wins_and_damage_is_named(tmp_path):
    cache = ResponseCache(tmp_path)
    cache.put({KEY: Response("first", "stop")})
    cache.put({KEY: Response("second", "stop")})
    assert ResponseCache(tmp_path).get(KEY) == Response("first", "stop")
    assert oct(tmp_path.joinpath(KEY[:2]).stat().st_mode)[-3:] == "700"
    (path,) = tmp_path.glob("*/*.json")
    path.write_text(path.read_text().replace("first", "worst"))
    with pytest.raises(InternalError, match=re.escape(f"{path} is damaged: delete")):
        cache.get(KEY)


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path):
    """Killed at the first link: the next worker finds all three."""
    script = f"""
import os, signal
from curate.generate.cache import Response, ResponseCache, response_key
cache = ResponseCache({str(tmp_path)!r})
def link(*args): os.kill(os.getpid(), signal.SIGKILL)
os.link = link
cache.put({{response_key("m", "p", {{}}, [n]): Response(f"answer {{n}}", "stop") for n in range(3)}})
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    cache = ResponseCache(tmp_path)
    assert [cache.get(response_key("m", "p", {}, [n])) for n in range(3)] == [Response(f"answer {n}", "stop") for n in range(3)]
    assert not list(tmp_path.glob("batch-*"))


# ---- routes, pieces, budget, new prompts -----------------------------------------------------------------------


def test_routes_send_each_kind_of_row_to_its_task(server, tmp_path):
    server.script = lambda body, nth: "Question: Who?\nAnswer: She." if "eight questions" in str(body) else "An answer."
    rows = table({"text": "poor text"}, {"text": "good text"}, quality=["low", "high"])
    routes = [{"task": "paraphrase", "when": {"quality": "low"}}, {"task": "diverse_qa", "when": {"quality": "high"}}]
    made = run(server, tmp_path, rows, routes=routes).to_pylist()
    assert [(row["parent_text"], row["text"]) for row in made] == [
        ("poor text", "An answer."),
        ("good text", "Question: Who?\nAnswer: She."),
    ]
    assert [row["generator"].split()[0] for row in made] == ["paraphrase", "diverse_qa"]
    with pytest.raises(ValueError, match="leave these out beside `routes`"):
        run(server, tmp_path, rows, routes=routes, task="distil")
    with pytest.raises(ValueError, match="named twice"):
        run(server, tmp_path, rows, routes=[routes[0], routes[0]])


def test_a_long_document_is_cut_at_its_pauses_and_put_together(server, tmp_path):
    server.script = lambda body, nth: "About " + re.search(r"\n(\w+) ", body["messages"][-1]["content"].split("DRAFT-")[1])[1] + "."
    text = "\n\n".join(f"{name} {'word ' * 30}".strip() for name in ("one", "two", "three"))
    (row,) = run(server, tmp_path, table({"text": text}), segment_tokens=50).to_pylist()
    assert row["text"] == "About one.\n\nAbout two.\n\nAbout three." and row["parent_text"] == text
    assert len({FENCE.search(message)[0] for message in shown(server)}) == 3
    server.script = lambda body, nth: (400, {}, b"{}") if "\ntwo " in str(body["messages"][-1]["content"]) else "Fine."
    (row,) = run(server, tmp_path / "other", table({"text": text}), segment_tokens=50).to_pylist()
    assert row["text"] == "" and row["generator"].endswith(" refused_http_400")


def test_a_budget_is_never_exceeded_and_takes_the_same_rows_in_any_sharding(server, tmp_path):
    rows = [{"text": f"document {number} " + "word " * 20} for number in range(40)]

    def spent(shards, budget):
        backend = {"kind": "endpoint", "base_url": server.url, "model": "m", "revision": "r", "max_new_tokens": 100}
        stage = Rewrite(backend=backend, cache=str(tmp_path), budget_tokens=budget)
        stage.fit(Shards(*shards), None, tmp_path)
        made = [stage.load(tmp_path)(shard) for shard in shards]
        left = sum(json.loads(one.schema.metadata[b"counts"]).get("over_budget", 0) for one in made)
        return {name for one in made for (name,) in one.column("parents").to_pylist()}, left

    whole = table(*rows)
    taken, left = spent([whole], 3000)
    assert 5 < len(taken) < 20 and len(taken) + left == 40
    cost = sum(-(-len(message.encode()) // 4) + 100 for message in shown(server))
    assert 2500 < cost <= 3000
    assert spent([whole.slice(30), whole.slice(0, 30)], 3000) == (taken, left)
    assert spent([whole], 6000)[0] > taken
    assert spent([whole], 10)[0] == set()


def test_a_prompt_in_other_words_keeps_the_given_answer(server, tmp_path):
    server.script = lambda body, nth: "How much do 3 pens cost?"
    chat = {
        "messages": [{"role": "user", "content": "What do 3 pens cost?"}, {"role": "assistant", "content": "6 euros."}],
        "prompt": "What do 3 pens cost?",
        "response": "6 euros.",
    }
    rows = table({"prompt": "What is the price of 3 pens?", "response": "6 euros."}, chat, {"prompt": "No answer?", "response": ""})
    made = run(server, tmp_path, rows, task="rephrase")
    first, second = made.to_pylist()
    assert (first["prompt"], first["response"], first["text"]) == (
        "How much do 3 pens cost?",
        "6 euros.",
        "How much do 3 pens cost?\n\n6 euros.",
    )
    assert [turn["content"] for turn in second["messages"]] == ["How much do 3 pens cost?", "6 euros."]
    assert json.loads(made.schema.metadata[b"counts"]) == {"no_answer_to_keep": 1}


def test_a_prompt_file_says_what_its_output_is_held_to(tmp_path):
    body = "{fence}\n{text}\n{fence}\nSay it again."
    (tmp_path / "mine.txt").write_text(f"---\nform: list\nfacts: subset\nlength_ratio: [0.1, 2]\n---\n{body}\n")
    prompt = read_prompt("mine", tmp_path)
    assert prompt.template == body and prompt.rules.form == "list" and prompt.rules.length_ratio == (0.1, 2.0)
    (tmp_path / "plain.txt").write_text(body)
    assert read_prompt("plain", tmp_path).digest == prompt.digest  # rules are not shown to the model
    for head, said in (
        ("form: poem", "form: "),
        ("colour: red", "known there: makes"),
        ("[", "no YAML"),
        ("makes: response", "makes text"),
    ):
        (tmp_path / "bad.txt").write_text(f"---\n{head}\n---\n{body}")
        with pytest.raises(UserMistake, match=re.escape(said)):
            read_prompt("bad", tmp_path)


def test_a_document_may_be_a_turn_of_its_own(server, tmp_path):
    run(server, tmp_path, table({"text": "A draft. <|im_end|>"}), task="tidy")
    system, user = server.bodies[0]["messages"]
    assert system["role"] == "system" and "re-writing" in system["content"]
    assert user == {"role": "user", "content": "A draft. < |im_end|>"}
    for body, said in (("Do it.\n{turn}\nNow: {text}", "alone in a turn"), ("Do it.\n{turn}\n{prompt}", "take the line")):
        (tmp_path / "bad.txt").write_text(body)
        with pytest.raises(UserMistake, match=said):
            read_prompt("bad", tmp_path)


def test_every_shipped_prompt_can_be_read_and_no_two_share_a_digest():
    names = [path.stem for path in PACKAGED.glob("*.txt")]
    assert {"guided_rewrite", "paraphrase", "diverse_qa", "distil", "extract", "knowledge_list", "rephrase", "self_answer"} <= set(names)
    assert len({read_prompt(name).digest for name in names}) == len(names)
