"""Runs a module of `orrery model build` in wasmtime's Python package: a host that knows nothing of Orrery's code.

    python run_module.py decay.wasm --until 2 --rows 8 --set k=3 --input u=0.5

The layout is that of docs/guides/models.md, ABI 2. All addresses in a plan are relative to the context's.
"""

import argparse
import json
import struct

import wasmtime

ABI = 2
CONTEXT = 1024  # the least address; a module may hold several contexts, each at a multiple of 16
CLOCK_HZ = 1e9  # clock units per second: nanoseconds


def description(wasm):
    """The custom section `orrery.model`: names, units and offsets as JSON."""

    def unsigned(at):
        value = shift = 0
        while True:
            byte = wasm[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    at = 8
    while at < len(wasm):
        kind = wasm[at]
        size, at = unsigned(at + 1)
        if kind == 0:
            length, name_at = unsigned(at)
            if wasm[name_at : name_at + length] == b"orrery.model":
                return json.loads(wasm[name_at + length : at + size])
        at += size
    raise SystemExit("not a module of orrery model build: it has no section orrery.model")


def pairs(settings):
    return {name: float(value) for name, value in (setting.split("=") for setting in settings)}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("module")
    arguments.add_argument("--until", type=float, required=True)
    arguments.add_argument("--rows", type=int, default=1)
    arguments.add_argument("--set", action="append", default=[])
    arguments.add_argument("--input", action="append", default=[])
    arguments = arguments.parse_args()

    with open(arguments.module, "rb") as file:
        wasm = file.read()
    model = description(wasm)
    if model["abi"] != ABI:
        raise SystemExit(f"the module has layout {model['abi']}, this program writes layout {ABI}")

    config = wasmtime.Config()
    config.cranelift_nan_canonicalization = True
    store = wasmtime.Store(wasmtime.Engine(config))
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, wasm), []).exports(store)
    memory, solve = exports["memory"], exports["solve"]

    # Behind the context lie the inputs' descriptors, their knots, and the rows.
    values, constant = pairs(arguments.set), pairs(arguments.input)
    columns, inputs = model["columns"], model["inputs"]
    align = lambda address: -(-address // 16) * 16
    inputs_at = align(model["context_bytes"])
    knots_at = inputs_at + 16 * len(inputs)
    rows_at = knots_at + 16 * len(constant)
    row_bytes = 8 + 8 * len(columns)
    rows = arguments.rows + 1
    needed = CONTEXT + rows_at + rows * row_bytes
    memory.grow(store, max(0, -(-needed // 65536) - memory.size(store)))

    def write(at, form, *fields):
        memory.write(store, struct.pack("<" + form, *fields), CONTEXT + at)

    def read(at, form):
        return struct.unpack("<" + form, memory.read(store, CONTEXT + at, CONTEXT + at + struct.calcsize(form)))

    # The plan: one tick from 0 to the end, with equally spaced rows.
    write(0, "qqq", 0, round(arguments.until * CLOCK_HZ), 0)  # origin, tick, first tick
    write(24, "III", 1, 1 | 2, 1)  # ticks, flags (initialise, first row), method (1: Tsitouras 5(4))
    write(36, "I", 10_000_000)  # most steps of a tick
    write(40, "ddd", 1e-6, 1e-9, CLOCK_HZ)  # rtol, atol, clock
    write(64, "IIII", inputs_at, rows_at, rows, arguments.rows)
    write(84, "II", 0, 0)  # no tape
    write(96, "d", 0.0)  # the first step is the method's choice
    write(104, "IIII", 0, 0, 0, 0)  # no rows at events, no gradient
    for at, variable in enumerate(inputs):
        given = variable["name"] in constant
        write(inputs_at + 16 * at, "IIII", 0, int(given), knots_at, 0)  # hold, knots, their address
        if given:
            write(knots_at, "qd", 0, constant[variable["name"]])
            knots_at += 16
    for variable in model["parameters"]:
        write(variable["offset"], "d", values.get(variable["name"], variable["default"]))
    for at in range(len(model["states"])):
        write(model["starts_at"] + 8 * at, "d", float("nan"))  # no start value but the model's

    code = solve(store, CONTEXT)
    if code != 0:
        (time,) = read(272, "d")
        raise SystemExit(f"solve stopped with status {code} at {time} s")
    print(",".join(["time"] + [column["name"] for column in columns]))
    (written,) = read(260, "I")
    for row in range(written):
        print(",".join(map(repr, read(rows_at + row * row_bytes, f"{1 + len(columns)}d"))))


if __name__ == "__main__":
    main()
