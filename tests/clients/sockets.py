"""Speaks to a provider over a WebSocket with the vendor's own unmodified SDK: no base URL, key and trust from the
environment. Takes the steps to do as JSON, and prints one JSON object for whatever happens:
{"open": true, "extensions": [...]}, {"event": {...}}, {"closed": [code, reason]}, {"refused": status, "body": "..."}.

Steps: {"create": {...}} asks for a response; {"text": "..."} sends this text; {"until": [types]} prints events until one
of these types, or the end of the socket; {"wait": file} waits until there is such a file; {"close": [code, reason]} ends
the socket; {"die": true} ends the process without a word.
"""

import json
import os
import sys
import time


def say(what):
    print(json.dumps(what), flush=True)


def ended(error):
    frame = error.rcvd
    say({"closed": [frame.code, frame.reason] if frame else None})


def until(connection, types):
    while True:
        event = json.loads(connection.recv_bytes())
        say({"event": event})
        if event["type"] in types:
            return


def perform(connection, step):
    if "create" in step:
        connection.response.create(**step["create"])
    elif "text" in step:
        connection.send_raw(step["text"])
    elif "until" in step:
        until(connection, step["until"])
    elif "wait" in step:
        while not os.path.exists(step["wait"]):
            time.sleep(0.02)
    elif "close" in step:
        connection.close(code=step["close"][0], reason=step["close"][1])
    elif "die" in step:
        os._exit(0)


def main():
    import openai
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    steps = json.loads(sys.argv[1])
    try:
        with openai.OpenAI().responses.connect() as connection:
            agreed = [extension.name for extension in connection._connection.protocol.extensions]
            say({"open": True, "extensions": agreed})
            try:
                for step in steps:
                    perform(connection, step)
            except ConnectionClosed as error:
                ended(error)
    except InvalidStatus as error:
        say({"refused": error.response.status_code, "body": bytes(error.response.body or b"").decode()})


main()
