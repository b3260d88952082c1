"""Calls a provider with its own unmodified SDK: no base URL, key and trust from the environment.

Prints one JSON object a line: {"delta": …} for each piece of a stream as it arrives, and for each call either
{"ok": true, "text", "tools", "model", "usage", …} or {"ok": false, "exception", "status", "code", "message", …}.
"""

import argparse
import asyncio
import json
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("provider", choices=["openai", "anthropic"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", default="Say hello.")
    parser.add_argument("--max-tokens", type=int, default=None)
    parser.add_argument("--tools", default="", help="names of tools to declare, separated by commas")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--usage", action="store_true", help="ask for usage in an OpenAI stream")
    parser.add_argument("--calls", type=int, default=1, help="how many calls, one after the other")
    parser.add_argument("--parallel", type=int, default=1, help="how many at once, each with its own connection")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between calls")
    parser.add_argument("--retries", type=int, default=None, help="the SDK's own default unless given")
    return parser.parse_args()


def say(**fields):
    print(json.dumps(fields), flush=True)


def options(args):
    return {} if args.retries is None else {"max_retries": args.retries}


def schema():
    return {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


class OpenAI:
    def __init__(self, args):
        import openai

        self.args, self.client = args, openai.AsyncOpenAI(**options(args))

    def request(self):
        args = self.args
        request = {"model": args.model, "messages": [{"role": "user", "content": args.prompt}]}
        if args.max_tokens is not None:
            request["max_completion_tokens"] = args.max_tokens
        if args.tools:
            request["tools"] = [
                {"type": "function", "function": {"name": name, "description": name, "parameters": schema()}}
                for name in args.tools.split(",")
            ]
        return request

    async def plain(self):
        reply = await self.client.chat.completions.create(**self.request())
        message = reply.choices[0].message
        tools = [call.function.name for call in message.tool_calls or []]
        return {"text": message.content, "tools": tools, "model": reply.model, "usage": dump(reply.usage)}

    async def stream(self):
        request = self.request() | {"stream": True}
        if self.args.usage:
            request["stream_options"] = {"include_usage": True}
        text, tools, model, usage, chunks = "", [], None, None, 0
        async for chunk in await self.client.chat.completions.create(**request):
            chunks, model, usage = chunks + 1, chunk.model, chunk.usage or usage
            # a client that did not ask for the usage event must never meet a chunk without choices
            delta = chunk.choices[0].delta if chunk.choices or not self.args.usage else None
            if delta and delta.content:
                text += delta.content
                say(delta=delta.content)
            for call in (delta and delta.tool_calls) or []:
                tools += [call.function.name] if call.function.name else []
        return {"text": text, "tools": tools, "model": model, "usage": dump(usage), "chunks": chunks}


class Anthropic:
    def __init__(self, args):
        import anthropic

        self.args, self.client = args, anthropic.AsyncAnthropic(**options(args))

    def request(self):
        args = self.args
        request = {
            "model": args.model,
            "max_tokens": args.max_tokens or 1024,
            "messages": [{"role": "user", "content": args.prompt}],
        }
        if args.tools:
            request["tools"] = [
                {"name": name, "description": name, "input_schema": schema()} for name in args.tools.split(",")
            ]
        return request

    def result(self, message, text):
        tools = [block.name for block in message.content if block.type == "tool_use"]
        return {"text": text, "tools": tools, "model": message.model, "usage": dump(message.usage)}

    async def plain(self):
        message = await self.client.messages.create(**self.request())
        return self.result(message, "".join(block.text for block in message.content if block.type == "text"))

    async def stream(self):
        text = ""
        async with self.client.messages.stream(**self.request()) as stream:
            async for piece in stream.text_stream:
                text += piece
                say(delta=piece)
            return self.result(await stream.get_final_message(), text)


def dump(usage):
    return usage.model_dump(exclude_none=True) if usage else None


def code(error):
    body = getattr(error, "body", None)
    body = body if isinstance(body, dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    return getattr(error, "code", None) or inner.get("code") or inner.get("type")


async def one(client, args):
    begun = time.monotonic()
    try:
        outcome = {"ok": True} | await (client.stream() if args.stream else client.plain())
    except Exception as error:  # whatever the SDK raises is the result
        response = getattr(error, "response", None)
        outcome = {
            "ok": False,
            "exception": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": code(error),
            "message": str(error),
            "headers": dict(response.headers) if response is not None else {},
        }
    say(**outcome, seconds=round(time.monotonic() - begun, 3))


async def main():
    args = arguments()
    client = (OpenAI if args.provider == "openai" else Anthropic)(args)
    for number in range(args.calls):
        if number:
            await asyncio.sleep(args.pause)
        await asyncio.gather(*(one(client, args) for _ in range(args.parallel)))


asyncio.run(main())
