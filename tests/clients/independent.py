"""Every call that the independent fake provider answers, once each: `independent.py` makes them all, one after another;
`independent.py sockets` talks on those sockets for which the vendor's SDK cannot be used: it sends names with underscores
to Gemini's Live, which Google reads and this provider does not, and asks Azure for paths that this provider does not know.

For each it prints one line of JSON: provider, dialect, name, stream, the status of the answer, and what the answer says
of tokens and of tools called, read here from the bytes and with nothing of Guard's.
"""

import base64
import http.client
import json
import os
import ssl
import struct
import sys

WORDS, CALL = "Say something.", "Use the tool."
TOOL = "get_weather"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": TOOL, "description": "The weather of a city.", "parameters": SCHEMA}
CLAUDE = "claude-haiku-4-5"
BEDROCK = "us.anthropic.claude-haiku-4-5-20251001-v1:0"


def chat(model, text, stream):
    body = {"messages": [{"role": "user", "content": text}], "tools": [{"type": "function", "function": FUNCTION}]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body | ({"model": model} if model else {})


def responses(model, text, stream):
    return {"model": model, "input": text, "tools": [{"type": "function", **FUNCTION}], "stream": stream}


def messages(model, text, stream):
    tools = [{"name": TOOL, "description": "The weather of a city.", "input_schema": SCHEMA}]
    body = {"max_tokens": 500, "messages": [{"role": "user", "content": text}], "tools": tools}
    return body | ({"model": model, "stream": stream} if model else {"anthropic_version": "bedrock-2023-05-31"})


def generate(_model, text, _stream):
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], "tools": [{"functionDeclarations": [FUNCTION]}]}


def converse(_model, text, _stream):
    spec = {"name": TOOL, "description": "The weather of a city.", "inputSchema": {"json": SCHEMA}}
    return {"messages": [{"role": "user", "content": [{"text": text}]}], "toolConfig": {"tools": [{"toolSpec": spec}]}}


def cohere(model, text, stream):
    return {**chat(model, text, False), "stream": stream}


def ollama(model, text, stream):
    body = chat(model, text, False)
    return body | {"stream": stream, "options": {"num_predict": 500}}


def completion(model, text, stream):
    return {"model": model, "prompt": text, "stream": stream, "options": {"num_predict": 500}}


VERTEX = "/v1/projects/lab/locations/us-central1/publishers/google/models/gemini-2.5-flash:"
AZURE = "/openai/deployments/gpt-5/"
# provider, host, dialect, path, path when streamed, body, model, where the key goes, whether a tool can be called
CALLS = [
    ("openai", "api.openai.com", "openai-chat", "/v1/chat/completions", None, chat, "gpt-5", "bearer", True),
    ("openai", "api.openai.com", "openai-responses", "/v1/responses", None, responses, "gpt-5", "bearer", True),
    ("anthropic", "api.anthropic.com", "anthropic-messages", "/v1/messages", None, messages, CLAUDE, "x-api-key", True),
    ("gemini", "generativelanguage.googleapis.com", "gemini", "/v1beta/models/gemini-2.5-flash:generateContent",
     "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", generate, None, "x-goog-api-key", True),
    ("vertex", "us-central1-aiplatform.googleapis.com", "gemini", VERTEX + "generateContent",
     VERTEX + "streamGenerateContent?alt=sse", generate, None, "bearer", True),
    ("bedrock", "bedrock-runtime.us-east-1.amazonaws.com", "bedrock-converse", f"/model/{BEDROCK}/converse",
     f"/model/{BEDROCK}/converse-stream", converse, None, "bearer", True),
    ("bedrock", "bedrock-runtime.us-east-1.amazonaws.com", "bedrock-invoke", f"/model/{BEDROCK}/invoke",
     f"/model/{BEDROCK}/invoke-with-response-stream", messages, None, "bearer", True),
    ("cohere", "api.cohere.com", "cohere", "/v2/chat", None, cohere, "command-a-03-2025", "bearer", True),
    ("mistral", "api.mistral.ai", "openai-chat", "/v1/chat/completions", None, chat, "mistral-small-latest", "bearer", True),
    ("azure", "lab.openai.azure.com", "openai-chat", AZURE + "chat/completions?api-version=2024-10-21", None, chat, None,
     "api-key", True),
    ("groq", "api.groq.com", "openai-chat", "/openai/v1/chat/completions", None, chat, "openai/gpt-oss-20b", "bearer", True),
    ("openrouter", "openrouter.ai", "openai-chat", "/api/v1/chat/completions", None, chat, "openai/gpt-5", "bearer", True),
    ("ollama", "ollama.com", "ollama", "/api/chat", None, ollama, "gpt-oss:20b", "bearer", True),
    ("ollama", "ollama.com", "ollama", "/api/generate", None, completion, "gpt-oss:20b", "bearer", False),
]
SOUND = b"RIFF\x24\x7d\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\x7d\0\0" + bytes(32000)


def upload(**fields):
    """A second of sound and these fields, as a form."""
    part = "--edge\r\ncontent-disposition: form-data; name="
    head = "".join(f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    head += f'{part}"file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n'
    return head.encode() + SOUND + b"\r\n--edge--\r\n"


EMBEDDED = "/v1beta/models/gemini-embedding-001:embedContent"
SPOKEN = "/v1/audio/transcriptions"
# calls without tools: provider, host, dialect, path, body, where the key goes, whether it is streamed
SINGLE = [
    ("openai", "api.openai.com", "embeddings", "/v1/embeddings",
     {"model": "text-embedding-3-small", "input": WORDS}, "bearer", False),
    ("azure", "lab.openai.azure.com", "embeddings", "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21",
     {"input": WORDS}, "api-key", False),
    ("gemini", "generativelanguage.googleapis.com", "gemini", EMBEDDED,
     {"content": {"parts": [{"text": WORDS}]}}, "x-goog-api-key", False),
    ("cohere", "api.cohere.com", "cohere", "/v2/embed",
     {"model": "embed-v4.0", "texts": [WORDS], "input_type": "search_document", "embedding_types": ["float"]}, "bearer", False),
    ("cohere", "api.cohere.com", "cohere", "/v2/rerank",
     {"model": "rerank-v3.5", "query": WORDS, "documents": [WORDS], "top_n": 1}, "bearer", False),
    ("openai", "api.openai.com", "media", "/v1/moderations", {"input": WORDS}, "bearer", False),
    ("openai", "api.openai.com", "media", "/v1/images/generations",
     {"model": "gpt-image-1", "prompt": WORDS}, "bearer", False),
    ("openai", "api.openai.com", "media", "/v1/audio/speech",
     {"model": "tts-1", "input": WORDS, "voice": "alloy"}, "bearer", False),
    ("openai", "api.openai.com", "media", SPOKEN, upload(model="gpt-4o-transcribe"), "bearer", False),
    ("openai", "api.openai.com", "media", SPOKEN, upload(model="gpt-4o-transcribe", stream="true"), "bearer", True),
    ("openai", "api.openai.com", "media", "/v1/images/variations", upload(model="dall-e-2"), "bearer", False),
    ("openai", "api.openai.com", "media", "/v1/videos", {"model": "sora-2", "prompt": WORDS}, "bearer", False),
    ("gemini", "generativelanguage.googleapis.com", "gemini", "/v1beta/interactions",
     {"model": "gemini-2.5-flash", "input": WORDS}, "x-goog-api-key", False),
]

INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count")
OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count")


def ask(host, path, body, place, key):
    connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(), timeout=60)
    name, value = ("authorization", f"Bearer {key}") if place == "bearer" else (place, key)
    form = isinstance(body, bytes)
    kind = "multipart/form-data; boundary=edge" if form else "application/json"
    headers = {"content-type": kind, "anthropic-version": "2023-06-01", name: value}
    connection.request("POST", path, body if form else json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers.get("content-type", ""), data


def frames(data):
    """The payloads of Amazon's binary event stream."""
    while data:
        total, head = struct.unpack(">II", data[:8])
        payload = json.loads(data[12 + head : total - 4] or b"{}")
        inner = payload.get("bytes")
        yield json.loads(base64.b64decode(inner)) if inner else payload
        data = data[total:]


def values(kind, data):
    """The JSON values of an answer, in order."""
    if "eventstream" in kind:
        yield from frames(data)
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if "event-stream" in kind:
        lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
        yield from (json.loads(line) for line in lines if line and line != "[DONE]")
    elif "ndjson" in kind:
        yield from (json.loads(line) for line in text.splitlines() if line.strip())
    elif "json" in kind:
        yield json.loads(text)


def walk(value, told):
    """What stands last in the answer is what counts."""
    if isinstance(value, list):
        for item in value:
            walk(item, told)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in INPUT and isinstance(item, int):
                told["input"] = item
            elif name in OUTPUT and isinstance(item, int):
                told["output"] = item
            elif name == "name" and item == TOOL:
                told["tools"] = [TOOL]
            walk(item, told)


def tell(provider, dialect, path, stream, answer):
    status, kind, data = answer
    told = {"input": None, "output": None, "tools": []}
    for value in values(kind, data):
        walk(value, told)
    line = {"provider": provider, "dialect": dialect, "path": path.split("?")[0], "stream": stream, "status": status, **told}
    if status != 200:
        line["said"] = data.decode(errors="replace")[:600]
    print(json.dumps(line), flush=True)


def live(connect):
    """Two turns on a socket of Gemini's Live."""
    host = "generativelanguage.googleapis.com"
    path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    key = {"x-goog-api-key": os.environ["GEMINI_API_KEY"]}
    with connect(f"wss://{host}{path}", additional_headers=key) as socket:
        setup = {"model": "models/gemini-3.8-live", "generationConfig": {"responseModalities": ["TEXT"], "maxOutputTokens": 500}}
        socket.send(json.dumps({"setup": setup | {"tools": [{"functionDeclarations": [FUNCTION]}]}}))
        print(socket.recv(decode=True), flush=True)
        for text in WORDS, CALL:
            turns = [{"role": "user", "parts": [{"text": text}]}]
            socket.send(json.dumps({"clientContent": {"turns": turns, "turnComplete": True}}))
            hear(socket, lambda said: "toolCall" in said or said.get("serverContent", {}).get("turnComplete"))


def realtime(connect):
    """Two responses on a realtime socket of Azure's."""
    key = {"api-key": os.environ["AZURE_API_KEY"]}
    with connect("wss://lab.openai.azure.com/openai/v1/realtime?model=gpt-realtime", additional_headers=key) as socket:
        session = {"type": "realtime", "output_modalities": ["text"], "tools": [{"type": "function", **FUNCTION}]}
        socket.send(json.dumps({"type": "session.update", "session": session}))
        hear(socket, lambda said: said["type"] == "session.updated")
        for text in WORDS, CALL:
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            socket.send(json.dumps({"type": "response.create"}))
            hear(socket, lambda said: said["type"] == "response.done")


def hear(socket, last):
    while True:
        said = json.loads(socket.recv())
        print(json.dumps(said), flush=True)
        if last(said) or "error" in said:
            return


def sockets():
    from websockets.sync.client import connect

    realtime(connect)
    live(connect)


def main():
    variable = lambda provider: os.environ[provider.upper() + "_API_KEY"]
    for provider, host, dialect, path, streamed, body, model, place, calls in CALLS:
        for text in (WORDS, CALL) if calls else (WORDS,):
            for stream in (False, True):
                asked = streamed if stream and streamed else path
                answer = ask(host, asked, body(model, text, stream), place, variable(provider))
                tell(provider, dialect, asked, stream, answer)
    for provider, host, dialect, path, body, place, stream in SINGLE:
        tell(provider, dialect, path, stream, ask(host, path, body, place, variable(provider)))


if __name__ == "__main__":
    sockets() if sys.argv[1:] == ["sockets"] else main()
