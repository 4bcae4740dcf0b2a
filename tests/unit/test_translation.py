"""What a call in one format becomes in the other, and what its answer becomes on the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import CHAT, MESSAGES
from gateway.token_usage import TokenUsage
from gateway.translation.base import NotTranslatable
from gateway.translation.chat_answer import ChatEvents, chat_answer
from gateway.translation.chat_request import ONE_OBJECT, messages_request
from gateway.translation.messages_answer import MessageEvents, message_answer
from gateway.translation.messages_request import chat_request

PIXEL = "iVBORw0KGgo="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
IMAGE_URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"name": "f", "description": "d", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
USAGE = TokenUsage(60, 40, 100, 30)


def call(number: int, arguments: str = "{}") -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": arguments}}


def use(number: int, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"c{number}", "name": "f", "input": given}


def chat(*messages: Any, **members: Any) -> dict[str, Any]:
    said = messages or ({"role": "user", "content": "hi"},)
    return {"model": "m", "messages": list(said), **members}


def messages(*turns: Any, **members: Any) -> dict[str, Any]:
    said = turns or ({"role": "user", "content": "hi"},)
    return {"model": "m", "max_tokens": 9, "messages": list(said), **members}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def result(*content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "c1", "content": list(content)}


# --- a chat completion becomes messages


def test_a_conversation_with_images_and_tools_becomes_messages() -> None:
    asked = messages_request(
        chat(
            {"role": "system", "content": "brief"},
            {"role": "user", "content": [text("look"), IMAGE_URL]},
            {"role": "assistant", "content": "ok", "tool_calls": [call(1, '{"a": 1}'), call(2, "")]},
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": [text("two")]},
            {"role": "user", "content": "and?"},
            {"role": "developer", "content": "kind"},
            tools=[FUNCTION],
            max_completion_tokens=7,
        )
    )

    results = [
        {"type": "tool_result", "tool_use_id": f"c{number}", "content": [text(said)]}
        for number, said in ((1, "one"), (2, "two"))
    ]
    assert asked == {
        "model": "m",
        "max_tokens": 7,
        "system": [text("brief"), text("kind")],
        "messages": [
            {"role": "user", "content": [text("look"), IMAGE]},
            {"role": "assistant", "content": [text("ok"), use(1, {"a": 1}), use(2, {})]},
            {"role": "user", "content": [*results, text("and?")]},
        ],
        "tools": [TOOL],
    }


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({}, {"max_tokens": 8192}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 0}, {"max_tokens": 0}),
        ({"max_tokens": 5, "max_completion_tokens": None}, {"max_tokens": 5}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"temperature": 1.5}, {"temperature": 1}),
        ({"top_p": 0.5, "top_k": 3, "stream": True}, {"top_p": 0.5, "top_k": 3, "stream": True}),
        ({"user": "ann", "seed": 5, "metadata": {"a": "b"}}, {"metadata": {"user_id": "ann"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
        ({"response_format": {"type": "json_object"}}, {"system": [text(ONE_OBJECT)]}),
        ({"tools": [FUNCTION], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (
            {"tools": [FUNCTION], "tool_choice": "none", "parallel_tool_calls": False},
            {"tool_choice": {"type": "none"}},
        ),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "tool", "name": "f"}},
        ),
        (
            {"tools": [FUNCTION], "parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
    ],
)
def test_members_of_a_chat_completion_become_those_of_messages(members: Any, found: Any) -> None:
    asked = messages_request(chat(**members))

    expected = {"max_tokens": 8192, **({"tools": [TOOL]} if "tools" in members else {}), **found}
    assert {name: asked[name] for name in asked if name not in ("model", "messages")} == expected


@pytest.mark.parametrize(
    "members",
    [
        {"n": 2},
        {"logprobs": True},
        {"modalities": ["text", "audio"]},
        {"functions": [{}]},
        {"response_format": {"type": "grammar"}},
        {"tools": [{"type": "custom"}]},
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools"}},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [call(1, "{")]}]},
    ],
)
def test_what_messages_have_no_word_for_is_refused(members: Any) -> None:
    with pytest.raises(NotTranslatable) as refused:
        messages_request({**chat(), **members})

    assert (refused.value.status, refused.value.code) == (400, "not_translatable")


def test_an_answer_in_messages_becomes_a_chat_completion() -> None:
    content = [{"type": "thinking", "thinking": "hmm"}, text("he"), text("llo"), use(1, {"a": 1})]
    message = {"id": "m1", "model": "m", "content": content, "stop_reason": "tool_use"}

    answer = chat_answer(message, USAGE)

    (choice,) = answer["choices"]
    assert (answer["id"], answer["object"], choice["finish_reason"]) == (
        "m1",
        "chat.completion",
        "tool_calls",
    )
    assert choice["message"]["content"] == "hello"
    assert choice["message"]["reasoning_content"] == "hmm"
    assert choice["message"]["tool_calls"] == [call(1, '{"a": 1}')]
    assert answer["usage"] == {
        "prompt_tokens": 60,
        "completion_tokens": 40,
        "total_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 30},
    }


def test_a_stream_of_messages_has_ended_when_it_says_why() -> None:
    """Of its ``message_delta`` events, one may tell counts alone."""
    deltas = [{"stop_reason": None}, {"stop_reason": "tool_use"}]
    carried = [{"type": "message_delta", "delta": each, "usage": {"output_tokens": 4}} for each in deltas]
    translation = ChatEvents()

    raws = [f"event: message_delta\ndata: {json.dumps(each)}\n\n".encode() for each in carried]
    told = [each for raw in raws for each in translation.events(MESSAGES.read_event(raw, ""))]

    chunks = [json.loads(each.raw.removeprefix(b"data: ")) for each in told]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "tool_calls"]
    assert [each.usage.completion_tokens for each in told if each.usage] == [4, 4]


# --- messages become a chat completion


def test_turns_with_images_and_tools_become_a_conversation() -> None:
    asked = chat_request(
        messages(
            {"role": "user", "content": [{**text("look"), "cache_control": {"type": "ephemeral"}}, IMAGE]},
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "x"}, text("ok"), use(1, {"a": 1})],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [text("one"), IMAGE]},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "two", "is_error": True},
                    text("and?"),
                ],
            },
            system=[text("brief")],
            tools=[TOOL],
        )
    )

    assert asked["max_completion_tokens"] == 9
    assert asked["tools"] == [FUNCTION]
    assert asked["messages"] == [
        {"role": "system", "content": "brief"},
        {"role": "user", "content": [text("look"), IMAGE_URL]},
        {"role": "assistant", "content": "ok", "tool_calls": [call(1, '{"a": 1}')]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: two"},
        {"role": "user", "content": [IMAGE_URL, text("and?")]},
    ]


def test_a_document_that_a_tool_gave_is_not_lost() -> None:
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": PIXEL},
    }
    given = [
        result(text("two files"), document, {"type": "document", "source": {"type": "text", "data": "x"}})
    ]

    asked = chat_request(messages({"role": "user", "content": given}))

    file = {"filename": "document.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"}
    assert asked["messages"] == [
        {"role": "tool", "tool_call_id": "c1", "content": "two files"},
        {"role": "user", "content": [{"type": "file", "file": file}, text("x")]},
    ]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"temperature": 0.5, "top_p": 0.5, "top_k": 3}, {"temperature": 0.5, "top_p": 0.5}),
        ({"metadata": {"user_id": "ann"}, "thinking": {"type": "enabled"}}, {"user": "ann"}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            },
            {
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "parallel_tool_calls": False,
            },
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
    ],
)
def test_members_of_messages_become_those_of_a_chat_completion(members: Any, found: Any) -> None:
    asked = chat_request(messages(**members))

    expected = {**({"tools": [FUNCTION]} if "tools" in members else {}), **found}
    known = ("model", "messages", "max_completion_tokens")
    assert {name: asked[name] for name in asked if name not in known} == expected


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"messages": [{"role": "user", "content": [{"type": "search_result"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
        {"messages": [{"role": "user", "content": [result(text("found"), {"type": "search_result"})]}]},
    ],
)
def test_what_a_chat_completion_has_no_word_for_is_refused(members: Any) -> None:
    with pytest.raises(NotTranslatable):
        chat_request({**messages(), **members})


def test_a_chat_completion_becomes_an_answer_in_messages() -> None:
    said = {"role": "assistant", "content": "hello", "tool_calls": [call(1, '{"a": 1}'), call(2, "{")]}
    completion = {"id": "c1", "model": "m", "choices": [{"message": said, "finish_reason": "tool_calls"}]}

    answer = message_answer(completion, USAGE)

    assert (answer["id"], answer["type"], answer["stop_reason"]) == ("c1", "message", "tool_use")
    assert answer["content"] == [text("hello"), use(1, {"a": 1}), use(2, {"arguments": "{"})]
    assert answer["usage"] == {
        "input_tokens": 30,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 30,
        "output_tokens": 40,
    }


# --- whatever comes


def bodies(values: Any) -> Any:
    names = (
        "role content type text tool_calls function arguments tool_call_id image_url url source tools "
        "tool_choice stop system metadata user_id output_config format response_format messages n input "
        "choices delta message index content_block usage max_tokens temperature modalities"
    )
    return st.dictionaries(st.sampled_from(names.split()), values, max_size=5)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from(["", "text", "user", "tool_use", "{", "x"]),
    lambda inner: st.lists(inner, max_size=3) | bodies(inner),
    max_leaves=12,
)


@given(bodies(ANY))
def test_no_request_is_a_bug_of_ours(asked: dict[str, Any]) -> None:
    for translate in (messages_request, chat_request):
        try:
            json.dumps(translate(asked))
        except NotTranslatable:
            pass


@given(bodies(ANY), st.lists(bodies(ANY), max_size=5))
def test_no_answer_is_a_bug_of_ours(answer: dict[str, Any], events: list[dict[str, Any]]) -> None:
    chat_answer(answer, None)
    message_answer(answer, None)
    kinds = ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop"]
    by_messages, by_chat = ChatEvents(), MessageEvents()
    for kind, carried in zip(kinds, events, strict=False):
        raw = b"data: " + json.dumps({**carried, "type": kind}).encode() + b"\n\n"
        by_messages.events(MESSAGES.read_event(raw, ""))
        by_chat.events(CHAT.read_event(raw, ""))
    by_chat.events(CHAT.read_event(b"data: [DONE]\n\n", ""))
