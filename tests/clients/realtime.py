"""Speaks OpenAI's realtime with the vendor's own unmodified SDK: no base URL, key and trust from the environment. Takes
the model and the steps to do as JSON, and prints one JSON object for whatever happens: {"open": true}, {"event": {...}},
{"closed": [code, reason]}, {"refused": status, "body": "..."}.

Steps: {"update": {...}} sets the session; {"say": "..."} puts a user's message into the conversation; {"respond": {...}}
asks for a response; {"answer": {...}} puts the result of the last tool call there; {"speak": n} sends n chunks of sound
that is not silent; {"silence": n} sends n chunks of silence; {"cancel": true} ends a response; {"raw": {...}} sends this;
{"until": [types]} prints events until one of these types, or the end of the socket; {"wait": file} waits until there is
such a file; {"touch": file} makes one.
"""

import base64
import json
import os
import sys
import time

CHUNK = 4800


def say(what):
    print(json.dumps(what), flush=True)


class Talk:
    def __init__(self, connection):
        self.connection = connection
        self.called = None

    def until(self, types):
        while True:
            event = json.loads(self.connection.recv_bytes())
            say({"event": event})
            item = event.get("item") or {}
            if item.get("type") == "function_call":
                self.called = item["call_id"]
            if event["type"] in types:
                return

    def sound(self, byte, chunks):
        audio = base64.b64encode(bytes([byte]) * CHUNK).decode()
        for _ in range(chunks):
            self.connection.input_audio_buffer.append(audio=audio)

    def perform(self, step):
        connection = self.connection
        if "update" in step:
            connection.session.update(session={"type": "realtime", **step["update"]})
        elif "say" in step:
            content = [{"type": "input_text", "text": step["say"]}]
            connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        elif "answer" in step:
            output = {"type": "function_call_output", "call_id": self.called, "output": json.dumps(step["answer"])}
            connection.conversation.item.create(item=output)
        elif "respond" in step:
            connection.response.create(response=step["respond"])
        elif "speak" in step:
            self.sound(7, step["speak"])
        elif "silence" in step:
            self.sound(0, step["silence"])
        elif "cancel" in step:
            connection.response.cancel()
        elif "raw" in step:
            connection.send_raw(json.dumps(step["raw"]))
        elif "until" in step:
            self.until(step["until"])
        elif "touch" in step:
            open(step["touch"], "w").close()
        elif "wait" in step:
            while not os.path.exists(step["wait"]):
                time.sleep(0.02)


def main():
    import openai
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    model, steps = sys.argv[1], json.loads(sys.argv[2])
    try:
        with openai.OpenAI().realtime.connect(model=model) as connection:
            say({"open": True})
            talk = Talk(connection)
            try:
                for step in steps:
                    talk.perform(step)
            except ConnectionClosed as error:
                frame = error.rcvd
                say({"closed": [frame.code, frame.reason] if frame else None})
    except InvalidStatus as error:
        say({"refused": error.response.status_code, "body": bytes(error.response.body or b"").decode()})


main()
