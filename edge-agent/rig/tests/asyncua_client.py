"""Reads the chamber controller with asyncua and prints what it saw as JSON."""

import asyncio
import json
import sys
from datetime import timezone

from asyncua import Client, ua

url, node_id, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])


def seconds(stamp):
    return stamp.replace(tzinfo=timezone.utc).timestamp()


class Handler:
    def __init__(self):
        self.values = asyncio.Queue()

    def datachange_notification(self, node, value, data):
        self.values.put_nowait((value, seconds(data.monitored_item.Value.SourceTimestamp)))


async def main():
    async with Client(url) as client:
        seen = {}
        children = await client.nodes.objects.get_children()
        names = [(await child.read_browse_name()).Name for child in children]
        seen["objects"] = names
        air = client.get_node(node_id)
        seen["name"] = (await air.read_browse_name()).Name
        clock = client.get_node(ua.ObjectIds.Server_ServerStatus_CurrentTime)
        value = await clock.read_data_value()
        seen["current_time"] = seconds(value.Value.Value)
        seen["current_time_type"] = (await clock.read_node_class()).name
        handler = Handler()
        subscription = await client.create_subscription(50, handler)
        # Without this trigger a sample that repeats the value before it is no news, and is not sent.
        every_sample = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        await subscription._subscribe(air, mfilter=every_sample, queuesize=100)
        seen["values"] = [await asyncio.wait_for(handler.values.get(), 10) for _ in range(wanted)]
        await subscription.delete()
        print(json.dumps(seen))


asyncio.run(main())
