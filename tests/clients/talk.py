"""Talks to a server over a bare socket, or is one. Arguments are HOST PORT, and what to say first.

talk.py HOST PORT [TEXT]     says TEXT (`\\n` for a line feed), prints what it heard, or the error's class
talk.py serve SPEC...        serves HOST PORT KIND for each SPEC of HOST=PORT=KIND; KIND `banner` speaks first, `http`
                             answers a request with the server's own address; prints `ready`
"""

import socket
import sys
import threading


def talk(host, port, text):
    try:
        stream = socket.create_connection((host, int(port)), timeout=15)
        stream.sendall(text.replace("\\n", "\r\n").encode())
        heard = b""
        while piece := stream.recv(4096):
            heard += piece
            if heard.startswith(b"220 "):
                break
        print(heard.decode("latin1") or "(closed)")
    except OSError as error:
        print(type(error).__name__)


def answer(stream, kind, name):
    with stream:
        if kind == "banner":
            stream.sendall(b"220 " + name + b" ready\r\n")
            stream.recv(4096)
        elif stream.recv(4096):
            head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(name)
            stream.sendall(head + name)


def accept(listener, kind, name):
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=answer, args=(stream, kind, name), daemon=True).start()


def serve(specs):
    threads = []
    for spec in specs:
        host, port, kind = spec.split("=")
        listener = socket.create_server((host, int(port)))
        name = f"{host}:{port}".encode()
        threads.append(threading.Thread(target=accept, args=(listener, kind, name), daemon=True))
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


if sys.argv[1] == "serve":
    serve(sys.argv[2:])
else:
    talk(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
