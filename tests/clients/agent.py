"""An agent's loop around a provider's own unmodified SDK: asks the model, runs the tool that it calls, asks again.

Tools are simulated: `read` gives what a file holds now, `edit` changes it, `test` says how many tests fail after the edits
so far, `check_build` says how far the build is, `search` finds nothing, `fetch` fails. Prints one JSON object for each
request: {"ok": true, "tool": name or null} or {"ok": false, "provider", "status", "code", "message"}.
"""

import argparse
import json
import logging

from agent_formats import FORMATS, SYSTEM_PROMPT
from agent_formats import code as code_of_others


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("provider", choices=["openai", "anthropic", *FORMATS])
    parser.add_argument("--turns", type=int, default=50, help="requests at most")
    parser.add_argument("--stubborn", type=int, default=0, help="asks the same again so often after an error")
    parser.add_argument("--fail-over", action="store_true", help="after an error, goes on with the other provider")
    parser.add_argument("--then-say", default="", help="what the user says after the last error, for one more request")
    parser.add_argument("--stream", action="store_true", help="reads the replies as streams")
    return parser.parse_args()


def say(**fields):
    print(json.dumps(fields), flush=True)


class Workshop:
    """What the tools work on."""

    def __init__(self):
        self.files, self.builds, self.edits = {}, 0, 0

    def use(self, name, given):
        """The tool's result, and whether it failed."""
        if name == "fetch":
            return "Error: connection reset by peer", True
        if name == "read":
            return f"{given['path']} version {self.files.get(given['path'], 0)}", False
        if name == "edit":
            self.files[given["path"]] = self.files.get(given["path"], 0) + 1
            self.edits += 1
            return "edited", False
        if name == "test":
            return f"{max(0, 40 - self.edits)} tests fail", self.edits < 5
        if name == "check_build":
            self.builds += 1
            return f"build {min(100, self.builds * 10)} %", False
        return "nothing found", False


class OpenAI:
    name = "openai"

    def __init__(self):
        import openai

        self.client = openai.OpenAI()

    def ask(self, turns, stream):
        request = {"model": "gpt-5", "max_completion_tokens": 500, "messages": self.messages(turns)}
        if stream:
            for _ in self.client.chat.completions.create(**request, stream=True):
                pass
            return None
        message = self.client.chat.completions.create(**request).choices[0].message
        for call in message.tool_calls or []:
            return call.function.name, json.loads(call.function.arguments)
        return None

    def messages(self, turns):
        told = [{"role": "system", "content": SYSTEM_PROMPT}]
        for number, turn in enumerate(turns):
            if isinstance(turn, str):
                told.append({"role": "user", "content": turn})
                continue
            name, given, result, _failed = turn
            function = {"name": name, "arguments": json.dumps(given)}
            call = {"id": f"call_{number}", "type": "function", "function": function}
            told.append({"role": "assistant", "content": None, "tool_calls": [call]})
            told.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return told


class Anthropic:
    name = "anthropic"

    def __init__(self):
        import anthropic

        self.client = anthropic.Anthropic()

    def ask(self, turns, stream):
        request = {
            "model": "claude-haiku-4-5",
            "max_tokens": 500,
            "system": SYSTEM_PROMPT,
            "messages": self.messages(turns),
        }
        if stream:
            with self.client.messages.stream(**request) as events:
                events.until_done()
            return None
        message = self.client.messages.create(**request)
        for block in message.content:
            if block.type == "tool_use":
                return block.name, block.input
        return None

    def messages(self, turns):
        told = []
        for number, turn in enumerate(turns):
            if isinstance(turn, str):
                told.append({"role": "user", "content": turn})
                continue
            name, given, result, failed = turn
            used = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": given}
            got = {"type": "tool_result", "tool_use_id": used["id"], "content": result, "is_error": failed}
            told.append({"role": "assistant", "content": [used]})
            told.append({"role": "user", "content": [got]})
        return told


def code(error):
    body = getattr(error, "body", None)
    body = body if isinstance(body, dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    code = (inner.get("details") or {}).get("code") or inner.get("code") or inner.get("type")
    return code or code_of_others(error)


def ask(provider, turns, args):
    """The tool that the model calls; False when there was an error."""
    try:
        called = provider.ask(turns, args.stream)
    except Exception as error:  # whatever the SDK raises is the result
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        said = {"exception": type(error).__name__, "status": status, "code": code(error), "message": str(error)}
        say(ok=False, provider=provider.name, **said)
        return False
    say(ok=True, provider=provider.name, tool=called[0] if called else None)
    return called


def main():
    logging.disable(logging.WARNING)
    args = arguments()
    workshop, turns = Workshop(), ["Make the tests pass."]
    kinds = {"openai": OpenAI, "anthropic": Anthropic}
    provider, patience = (kinds | FORMATS)[args.provider](), args.stubborn
    for _ in range(args.turns):
        called = ask(provider, turns, args)
        if called is False:
            if args.fail_over:
                args.fail_over = False
                other = next(name for name in kinds if name != provider.name)
                provider = kinds[other]()
                continue
            patience -= 1
            if patience >= 0:
                continue
        if not called:
            break
        name, given = called
        turns.append((name, given, *workshop.use(name, given)))
    if args.then_say:
        ask(provider, turns + [args.then_say], args)


main()
