"""Random expressions with their values and derivatives in 40 digits, for `cargo test -p orrery-lang --test derivatives`.

Trees over every operator and elementary function of the subset, from a fixed seed. Each is evaluated with mpmath at points
that are doubles; derivatives are central differences with a step of 1e-20. A tree is thrown away where an intermediate
value or a derivative is large, where it lies near a place without a derivative, or where it does not depend on a variable.
"""

import datetime
import json
import pathlib
import random

import mpmath as mp

mp.mp.dps = 60
STEP = mp.mpf(10) ** -20
LARGEST = 30
SEED = 20260401
BATCHES, EXPRESSIONS = 6, 50
VARIABLES = ["p", "q", "x"]


class Unfit(Exception):
    pass


def away(value, bound=0.05):
    """Refuses what lies near a place where a function has no derivative."""
    if abs(value) < bound:
        raise Unfit
    return value


def within(value, low, high):
    if not low < value < high:
        raise Unfit
    return value


def chosen(condition, one, other):
    return one if condition > 0 else other


UNARY = {
    "sqrt": lambda a: mp.sqrt(within(a, 0.05, LARGEST)),
    "exp": lambda a: mp.exp(within(a, -LARGEST, 3)),
    "log": lambda a: mp.log(within(a, 0.05, LARGEST)),
    "log10": lambda a: mp.log10(within(a, 0.05, LARGEST)),
    "sin": mp.sin,
    "cos": mp.cos,
    "tan": lambda a: (away(mp.cos(a), 0.2), mp.tan(a))[1],
    "asin": lambda a: mp.asin(within(a, -0.9, 0.9)),
    "acos": lambda a: mp.acos(within(a, -0.9, 0.9)),
    "atan": mp.atan,
    "sinh": lambda a: mp.sinh(within(a, -3, 3)),
    "cosh": lambda a: mp.cosh(within(a, -3, 3)),
    "tanh": mp.tanh,
    "abs": lambda a: abs(away(a)),
    "-": lambda a: -a,
}
BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / away(b, 0.2),
    "^": lambda a, b: mp.power(within(a, 0.1, 10), within(b, -4, 4)),
    "min": lambda a, b: (away(a - b), min(a, b))[1],
    "max": lambda a, b: (away(a - b), max(a, b))[1],
    "atan2": lambda a, b: (away(abs(a) + abs(b), 0.2), within(abs(mp.atan2(a, b)), 0, 3), mp.atan2(a, b))[2],
}


def tree(source, depth):
    """(text, function of a dictionary of values)"""
    kind = source.random()
    if depth == 0 or kind < 0.1:
        if source.random() < 0.75:
            name = source.choice(VARIABLES)
            return name, lambda at: at[name]
        number = round(source.uniform(0.2, 3), 3)
        return repr(number), lambda at: mp.mpf(number)
    if kind < 0.45:
        name = source.choice(list(UNARY))
        text, inner = tree(source, depth - 1)
        return f"({name}({text}))" if name == "-" else f"{name}({text})", lambda at: bounded(UNARY[name](inner(at)))
    (left, a), (right, b) = tree(source, depth - 1), tree(source, depth - 1)
    if kind < 0.5:
        power = source.choice([2, 3, -1, -2])
        return f"({left})^({power})", lambda at: bounded(away(a(at), 0.1) ** power)
    if kind < 0.57:
        condition, c = tree(source, depth - 1)
        text = f"noEvent(if {condition} > 0 then {left} else {right})"
        return text, lambda at: bounded(chosen(away(c(at)), a(at), b(at)))
    name = source.choice(list(BINARY))
    text = f"({left}) {name} ({right})" if not name.isalnum() else f"{name}({left}, {right})"
    return f"({text})" if not name.isalnum() else text, lambda at: bounded(BINARY[name](a(at), b(at)))


def bounded(value):
    if not mp.isfinite(value) or abs(value) > LARGEST:
        raise Unfit
    return value


def examined(text, function, at):
    """The fixture's entry; raises Unfit where doubles could not be expected to find it."""
    value = function(at)
    gradient = {}
    for name in VARIABLES:
        high, low = function({**at, name: at[name] + STEP}), function({**at, name: at[name] - STEP})
        gradient[name] = (high - low) / (2 * STEP)
    if max(abs(slope) for slope in gradient.values()) > 100 or sum(slope != 0 for slope in gradient.values()) < 2:
        raise Unfit
    return {
        "expression": text,
        "value": mp.nstr(value, 40),
        "gradient": {name: mp.nstr(slope, 40) for name, slope in gradient.items()},
    }


def batch(source):
    at = {name: mp.mpf(round(source.uniform(0.3, 1.7), 3)) for name in VARIABLES}
    cases, seen = [], set()
    while len(cases) < EXPRESSIONS:
        text, function = tree(source, source.randint(2, 5))
        try:
            case = examined(text, function, at)
        except (Unfit, ZeroDivisionError):
            continue
        if len(text) < 400 and text not in seen:
            seen.add(text)
            cases.append(case)
    return {"at": {name: float(value) for name, value in at.items()}, "cases": cases}


if __name__ == "__main__":
    source = random.Random(SEED)
    fixture = {
        "command": "python expressions.py",
        "date": datetime.date.today().isoformat(),
        "versions": {"mpmath": mp.__version__},
        "batches": [batch(source) for _ in range(BATCHES)],
    }
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(fixture, indent=1) + "\n")
