"""Drives a board with the public `tclab` package, unmodified, and prints what it saw as JSON.

The package looks for its board among the USB serial ports of the machine; a pseudo-terminal is none, so it is added to that
list. Nothing else is touched.
"""

import contextlib
import json
import sys
import time

from serial.tools import list_ports

port = sys.argv[1]
list_ports.comports = lambda *_: [(port, "rig", "USB VID:PID=2341:8036")]

import tclab

seen = {}
with contextlib.redirect_stdout(sys.stderr), tclab.TCLab() as lab:
    seen["version"] = lab.version
    seen["cold"] = [lab.T1, lab.T2]
    seen["set"] = [lab.Q1(60), lab.Q2(20.5), lab.Q1(), lab.Q2()]
    seen["clipped"] = [lab.Q2(250), lab.Q2(-5)]
    lab.P1 = 180
    seen["limit"] = lab.P1
    seen["led"] = lab.LED(50)
    lab.Q1(60)
    time.sleep(3)
    seen["warm"] = list(lab.scan())
    lab.send("SCAN")
    seen["scan"] = [float(lab.receive()) for _ in range(4)]
    seen["garbage"] = lab.send_and_receive("warp 9")
    seen["after_garbage"] = [lab.Q1(), lab.Q2()]
print(json.dumps(seen))
