"""Rules to a C table: what has to run before clang wherever a classifier is compiled for its rules.

Reads rules such as `ip tcp dport 8080 actions funnel tcp sport 540 dport 80` from a file and writes
a header for classifier.c. `make bench` times it; nothing else uses it.
"""

import ipaddress
import json
import re
import socket
import sys

MATCH = re.compile(r"(saddr|daddr|sport|dport)\s+(\S+)")


def field(name, value):
    if name.endswith("addr"):
        network = ipaddress.IPv4Network(value, strict=False)
        address = socket.htonl(int(network.network_address))
        mask = socket.htonl(int(network.netmask))
        return f".{name} = {address:#x}, .{name[0]}mask = {mask:#x}"
    return f".{name} = {socket.htons(int(value)):#x}"


def rule(line):
    matches, actions = line.split("actions")
    fields = [field(*found) for found in MATCH.findall(matches)]
    fields.append(".protocol = IPPROTO_" + ("TCP" if "tcp" in matches.split() else "UDP"))
    action, through = actions.split()[:2]
    fields.append(f".push = {int(action == 'funnel')}, .through = IPPROTO_{through.upper()}")
    return "{ " + ", ".join(fields) + " }, // " + json.dumps(line)


with open(sys.argv[1]) as file:
    lines = [line.split("#")[0].strip() for line in file.read().replace(";", "\n").splitlines()]

print("static const struct rule rules[] = {")
print("\n".join(rule(line) for line in lines if line))
print("};")
