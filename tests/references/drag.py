"""A bouncing ball with drag over a recorded mesh: Tsit5 in 60 digits, step for step as the module takes it.

`cargo test -p orrery-lang --test derivatives` prints the mesh of its run where it is not the fixture's; give it to this
program as its standard input:

    python drag.py < mesh.json

The mesh is a list of `[start, end, stop, guard]`. The ends of steps are held; a step with a guard stops where the
interpolant of the height is zero, and the next one starts there. So the derivatives by parameters, central differences with
a step of 1e-25, are what an adjoint with a frozen mesh must find. Coefficients are the doubles that the module uses.
"""

import datetime
import json
import pathlib
import sys

import mpmath as mp

mp.mp.dps = 60
STEP = mp.mpf(10) ** -25
# Shorter steps than this end where they begin: a relation that falls back after an event.
EMPTY = 1e-12
PARAMETERS = {"e": 0.8, "g": 9.81, "c": 0.15, "h0": 1.0, "v0": 0.5}

# Tsitouras, Runge-Kutta pairs of order 5(4), Computers and Mathematics with Applications 62 (2011).
STAGES = [
    [],
    [0.161],
    [-0.008480655492356989, 0.335480655492357],
    [2.8971530571054935, -6.359448489975075, 4.3622954328695815],
    [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
    [5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383],
    [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774],
]
# The weight of each slope in the interpolant: coefficients of s, s^2, s^3 and s^4.
INTERPOLANT = [
    [1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216],
    [0.0, 0.13169999999999998, -0.2234, 0.1017],
    [0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253],
    [0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902],
    [0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928],
    [0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661],
    [0.0, 1.5, -4.0, 2.5],
]


def slope(state, parameters):
    height, speed = state
    return [speed, -parameters["g"] - parameters["c"] * speed * abs(speed)]


def combined(state, h, weights, slopes):
    sums = [sum(w * k[i] for w, k in zip(weights, slopes)) for i in range(2)]
    return [x + h * total for x, total in zip(state, sums)]


def run(mesh, parameters):
    """Height and speed at the end of the mesh."""
    time, state = mp.mpf(mesh[0][0]), [parameters["h0"], parameters["v0"]]
    for start, end, stop, guard in mesh:
        if guard and stop - start < EMPTY:
            continue
        h = mp.mpf(end) - time
        slopes, reached = [], state
        for row in STAGES:
            reached = combined(state, h, row, slopes)
            slopes.append(slope(reached, parameters))
        if not guard:
            time, state = mp.mpf(end), reached
            continue

        def at(share):
            weights = [sum(b * share ** (power + 1) for power, b in enumerate(row)) for row in INTERPOLANT]
            return combined(state, h, weights, slopes)

        share = mp.findroot(lambda share: at(share)[0], (mp.mpf(stop) - time) / h)
        time, (height, speed) = time + share * h, at(share)
        state = [height, -parameters["e"] * speed]
    return state


def main():
    mesh = json.load(sys.stdin)
    exact = {name: mp.mpf(value) for name, value in PARAMETERS.items()}
    height, speed = run(mesh, exact)
    gradient = {}
    for name in PARAMETERS:
        high, low = (run(mesh, {**exact, name: exact[name] + sign * STEP})[0] for sign in (1, -1))
        gradient[name] = mp.nstr((high - low) / (2 * STEP), 30)
    fixture = {
        "command": "python drag.py < mesh.json",
        "date": datetime.date.today().isoformat(),
        "versions": {"mpmath": mp.__version__},
        "mesh": mesh,
        "height": mp.nstr(height, 30),
        "speed": mp.nstr(speed, 30),
        "gradient": gradient,
    }
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(fixture, indent=1) + "\n")


if __name__ == "__main__":
    main()
