"""Talks to a server over a bare socket, or is one. Arguments are HOST PORT, and what to say first.

talk.py HOST PORT [TEXT]     says TEXT (`\\n` for a line feed), prints what it heard, or the error's class
talk.py ask HOST NAME        asks the resolver at HOST for NAME's address, prints it
talk.py serve SPEC...        serves HOST PORT KIND for each SPEC of HOST=PORT=KIND; KIND `banner` speaks first, `http`
                             answers a request with the server's own address, `dns:NAME/ADDRESS,...` is a resolver (over
                             UDP) that knows these names; prints `ready`
"""

import socket
import struct
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


def encoded(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def ask(host, name):
    stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream.settimeout(15)
    header = struct.pack("!6H", 0x1234, 0x100, 1, 0, 0, 0)
    stream.sendto(header + encoded(name) + struct.pack("!HH", 1, 1), (host, 53))
    answer = stream.recv(4096)
    print(socket.inet_ntoa(answer[-4:]) if answer[7] else f"code {answer[3] & 15}")


def resolve(stream, table):
    known = {encoded(name): socket.inet_aton(address) for name, address in table}
    while True:
        query, client = stream.recvfrom(4096)
        end = query.index(b"\0", 12) + 1
        question = query[12 : end + 4]
        address = known.get(query[12:end].lower()) if question.endswith(b"\0\1\0\1") else None
        code = 0 if query[12:end].lower() in known else 3
        head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1 if address else 0, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + address if address else b""
        stream.sendto(head + question + record, client)


def serve(specs):
    threads = []
    for spec in specs:
        host, port, kind = spec.split("=")
        if kind.startswith("dns:"):
            table = [pair.split("/") for pair in kind[4:].split(",")]
            stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stream.bind((host, int(port)))
            threads.append(threading.Thread(target=resolve, args=(stream, table), daemon=True))
            continue
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
elif sys.argv[1] == "ask":
    ask(sys.argv[2], sys.argv[3])
else:
    talk(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
