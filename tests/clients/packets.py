"""Prints a line for each IPv4 packet to the address given that any device but lo and uplink receives or sends."""

import socket
import sys

ETH_P_ALL = 3

sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
wanted = socket.inet_aton(sys.argv[1])
print("ready", flush=True)
while True:
    packet, (device, protocol, *_) = sock.recvfrom(2048)
    if device in ("lo", "uplink") or protocol != 0x0800 or packet[16:20] != wanted:
        continue
    print(device, socket.inet_ntoa(packet[12:16]), packet[9], flush=True)
