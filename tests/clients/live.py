"""Speaks Gemini's Live with Google's own unmodified SDK: no base URL, key and trust from the environment. Takes the model,
the configuration and the steps to do as JSON, and prints one JSON object for whatever happens: {"open": true}, {"text":
"..."}, {"sound": bytes}, {"call": name}, {"turn": true} at the end of one, {"failed": [code, text]}.

Steps: {"say": "..."} is a turn of the user's; {"speak": n} sends n chunks of sound that is not silent; {"silence": n} sends n
chunks of silence; {"answer": {...}} is the result of the last tool call; {"hear": true} prints what comes until the end of
a turn, a tool call, or a failure; {"wait": file} waits until there is such a file; {"touch": file} makes one.
"""

import asyncio
import json
import os
import sys

CHUNK = 3200


def say(what):
    print(json.dumps(what), flush=True)


class Talk:
    def __init__(self, session, types):
        self.session = session
        self.types = types
        self.call = None

    async def hear(self):
        from google.genai import errors

        try:
            async for message in self.session.receive():
                content = message.server_content
                for part in (content and content.model_turn and content.model_turn.parts) or []:
                    if part.text:
                        say({"text": part.text})
                    if part.inline_data:
                        say({"sound": len(part.inline_data.data)})
                if message.tool_call:
                    self.call = message.tool_call.function_calls[0]
                    say({"call": self.call.name})
                    return
                if content and content.turn_complete:
                    say({"turn": True})
                    return
        except errors.APIError as error:
            say({"failed": [error.code, str(error)]})

    async def sound(self, byte, chunks):
        for _ in range(chunks):
            blob = self.types.Blob(data=bytes([byte]) * CHUNK, mime_type="audio/pcm;rate=16000")
            await self.session.send_realtime_input(audio=blob)

    async def perform(self, step):
        types = self.types
        if "say" in step:
            turn = types.Content(role="user", parts=[types.Part(text=step["say"])])
            await self.session.send_client_content(turns=turn, turn_complete=True)
        elif "speak" in step:
            await self.sound(7, step["speak"])
        elif "silence" in step:
            await self.sound(0, step["silence"])
        elif "answer" in step:
            response = types.FunctionResponse(id=self.call.id, name=self.call.name, response=step["answer"])
            await self.session.send_tool_response(function_responses=[response])
        elif "hear" in step:
            await self.hear()
        elif "touch" in step:
            open(step["touch"], "w").close()
        elif "wait" in step:
            while not os.path.exists(step["wait"]):
                await asyncio.sleep(0.02)


async def main():
    from google import genai
    from google.genai import types

    model, config, steps = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    client = genai.Client()
    async with client.aio.live.connect(model=model, config=config) as session:
        say({"open": True})
        talk = Talk(session, types)
        for step in steps:
            await talk.perform(step)


asyncio.run(main())
