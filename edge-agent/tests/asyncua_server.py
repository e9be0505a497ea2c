"""A foreign OPC UA server: a variable that counts, one that can be set, and one that is a text."""

import asyncio
import sys

from asyncua import Server, ua


async def main(port):
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/lab/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("urn:lab")
    chamber = await server.nodes.objects.add_object(space, "Chamber")
    count = await chamber.add_variable(ua.NodeId("Count", space), "Count", 0.0)
    target = await chamber.add_variable(ua.NodeId("Target", space), "Target", 1.5)
    await target.set_writable()
    await chamber.add_variable(ua.NodeId("Name", space), "Name", "chamber 7")
    async with server:
        print("ready", flush=True)
        number = 0.0
        while True:
            # Two equal values in a row: the second is a sample too.
            number += 0.5
            await count.write_value(float(int(number)))
            await asyncio.sleep(0.05)


asyncio.run(main(int(sys.argv[1])))
