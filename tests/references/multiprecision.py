"""Initial value problems in 34 digits, differences of their solutions, and the fixtures that hold them.

Two integrators that share nothing with Orrery's: Gragg's method with Bulirsch-Stoer extrapolation (Hairer, Norsett and
Wanner, Solving ODEs I, II.9) for problems that are not stiff, and collocation at Radau points of any order (Hairer and
Wanner, Solving ODEs II, IV.5 and IV.8) for those that are.
"""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import sys

import mpmath as mp
import numpy as np
import scipy.integrate

mp.mp.dps = 34
TOLERANCE = mp.mpf(10) ** -25
COLUMNS = 14
HERE = pathlib.Path(__file__).parent


def exact(values):
    """Doubles, digit for digit."""
    return [mp.mpf(value) for value in values]


def extrapolated(f, t, y, step):
    """One large step; the state and whether its error estimate is below TOLERANCE."""
    table = []
    for column in range(1, COLUMNS + 1):
        parts = 2 * column
        h = step / parts
        before, now = y, [a + h * b for a, b in zip(y, f(t, y))]
        for part in range(1, parts):
            slope = f(t + part * h, now)
            before, now = now, [a + 2 * h * b for a, b in zip(before, slope)]
        row = [now]
        for back in range(1, column):
            ratio = mp.mpf(column) / (column - back)
            row.append([a + (a - b) / (ratio**2 - 1) for a, b in zip(row[-1], table[-1][back - 1])])
        if column > 2 and all(abs(a - b) <= TOLERANCE * (1 + abs(a)) for a, b in zip(row[-1], row[-2])):
            return row[-1], column
        table.append(row)
    return None, COLUMNS


def advance(f, t, y, end, guard=None, first=0.05):
    """To `end`, or to the first sign change of `guard(t, y)`; returns time, state and whether the guard stopped it."""
    t, end = mp.mpf(t), mp.mpf(end)
    step = min(mp.mpf(first), end - t) if end > t else mp.mpf(0)
    last = guard(t, y) if guard else None
    while end - t > 0:
        step = min(step, end - t)
        new, columns = extrapolated(f, t, y, step)
        if new is None:
            step /= 2
            continue
        if guard:
            value = guard(t + step, new)
            if last > 0 >= value:
                return *locate(f, t, y, step, guard, last, value), True
            last = value
        t, y = t + step, new
        step *= 1.6 if columns < 10 else 1.0 if columns < 13 else 0.75
    return t, y, False


def locate(f, t, y, step, guard, left, right):
    """The root of the guard inside a step, by Illinois' false position on its length."""
    low, high, a, b = mp.mpf(0), step, left, right
    for _ in range(60):
        middle = high - b * (high - low) / (b - a)
        state, _ = extrapolated(f, t, y, middle)
        value = guard(t + middle, state)
        if abs(value) < TOLERANCE or abs(high - low) < TOLERANCE:
            return t + middle, state
        if value * b < 0:
            low, a = high, b
        else:
            a /= 2
        high, b = middle, value
    raise ArithmeticError("the event was not located")


def trajectory(f, y, times):
    """States at all times, the first of which belongs to `y`."""
    states, now = [y], times[0]
    for time in times[1:]:
        _, y, _ = advance(f, now, y, time)
        states.append(y)
        now = time
    return states


def radau_points(stages):
    """Nodes and matrix of Radau IIA with so many stages (order 2*stages - 1)."""
    polynomial = lambda x: mp.legendre(stages, 2 * x - 1) - mp.legendre(stages - 1, 2 * x - 1)
    grid = [mp.sin(mp.pi * k / (80 * stages)) ** 2 for k in range(40 * stages)]
    nodes = []
    for left, right in zip(grid, grid[1:]):
        if polynomial(left) * polynomial(right) < 0:
            nodes.append(mp.findroot(polynomial, (left, right), solver="illinois", tol=1e-60))
    nodes.append(mp.mpf(1))
    assert len(nodes) == stages
    powers = mp.matrix(stages, stages)
    integrals = mp.matrix(stages, stages)
    for i, c in enumerate(nodes):
        for j in range(stages):
            powers[i, j] = c**j
            integrals[i, j] = c ** (j + 1) / (j + 1)
    return nodes, integrals * powers**-1


def collocation(f, jacobian, y, mesh, stages=8):
    """States at the points of the mesh, one Radau IIA step between each two."""
    with mp.workdps(70):
        nodes, matrix = radau_points(stages)
    size, weights = len(y), [[matrix[i, j] for j in range(stages)] for i in range(stages)]
    coarse = np.array([[float(w) for w in row] for row in weights])
    states = [y]
    for t, end in zip(mesh, mesh[1:]):
        h = mp.mpf(end) - mp.mpf(t)
        k = [f(t, y) for _ in range(stages)]
        for _ in range(60):
            points = [
                [y[v] + h * mp.fdot((weights[i][j], k[j][v]) for j in range(stages)) for v in range(size)]
                for i in range(stages)
            ]
            residual = [[a - b for a, b in zip(f(t, points[i]), k[i])] for i in range(stages)]
            system = np.eye(stages * size)
            for i in range(stages):
                slope = np.array([[float(e) for e in row] for row in jacobian(points[i])])
                for j in range(stages):
                    system[i * size : (i + 1) * size, j * size : (j + 1) * size] -= float(h) * coarse[i, j] * slope
            flat = [float(value) for row in residual for value in row]
            change = np.linalg.solve(system, flat)
            for i in range(stages):
                for v in range(size):
                    k[i][v] += mp.mpf(change[i * size + v])
            moved = max(abs(h * mp.mpf(c)) / scale for c, scale in zip(change, [abs(p) + mp.mpf(10) ** -12 for p in y] * stages))
            if moved < mp.mpf(10) ** -24:
                break
        else:
            raise ArithmeticError(f"Newton's method did not converge at {t}")
        y = [y[v] + h * mp.fdot((weights[-1][j], k[j][v]) for j in range(stages)) for v in range(size)]
        states.append(y)
    return states


def gradient(value, point, names):
    """Central differences of `value(**point)` in every name, their own step by the size of the value."""
    result = {}
    for name in names:
        step = mp.mpf(10) ** -9 * max(abs(mp.mpf(point[name])), mp.mpf(10) ** -3)
        sides = [value(**{**point, name: mp.mpf(point[name]) + sign * step}) for sign in (1, -1)]
        result[name] = float((sides[0] - sides[1]) / (2 * step))
    return result


def doubles(f, y, times, method="DOP853"):
    """The same problem by scipy at its tightest tolerance; states by time."""
    solution = scipy.integrate.solve_ivp(
        lambda t, x: np.array([float(v) for v in f(t, [float(v) for v in x])]),
        (float(times[0]), float(times[-1])),
        [float(v) for v in y],
        method=method,
        t_eval=[float(t) for t in times],
        rtol=3e-14,
        atol=1e-16,
    )
    return solution.y.T


def largest_difference(states, others):
    """Relative to 1 plus the size of the value."""
    return max(
        abs(float(a) - float(b)) / (1 + abs(float(a))) for row, other in zip(states, others) for a, b in zip(row, other)
    )


def series(names, states):
    return {name: [float(row[index]) for row in states] for index, name in enumerate(names)}


def write(name, method, cases, packages=("mpmath", "numpy", "scipy"), **more):
    """The fixture NAME.json beside this file."""
    fixture = {
        "model": name,
        "command": f"python tests/references/{pathlib.Path(sys.argv[0]).name}",
        "made": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "method": method,
        **more,
        "cases": cases,
    }
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(fixture, indent=1) + "\n")
    print(path.name, path.stat().st_size, "bytes")
