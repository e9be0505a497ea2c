"""Robertson and van der Pol (mu = 1000) by Radau collocation in 34 digits, beside the published values."""

import mpmath as mp
import numpy as np

from multiprecision import collocation, exact, largest_difference, series, write

METHOD = "Radau IIA collocation with 8 stages (order 15) in 34 digits; `agreement` is the largest relative difference " \
    "from 10 stages on a mesh of half the steps; `published` are printed reference values"
SOURCE = "F. Mazzia and C. Magherini, Test Set for Initial Value Problem Solvers, release 2.4 (2008)"


def relative(states, others):
    return max(abs(float(a / b - 1)) if b else abs(float(a)) for row, other in zip(states, others) for a, b in zip(row, other))


def robertson():
    def f(t, y):
        r1, r2, r3 = mp.mpf(0.04) * y[0], mp.mpf(3e7) * y[1] ** 2, mp.mpf(1e4) * y[1] * y[2]
        return [-r1 + r3, r1 - r2 - r3, r2]

    def jacobian(y):
        return [
            [-0.04, 1e4 * y[2], 1e4 * y[1]],
            [0.04, -6e7 * y[1] - 1e4 * y[2], -1e4 * y[1]],
            [0.0, 6e7 * y[1], 0.0],
        ]

    times = [0.4, 4.0, 40.0, 400.0, 4e3, 4e4, 4e5, 4e6, 4e7, 4e8, 4e9, 4e10, 1e11]

    def solve(per_decade, stages):
        mesh, marks = [0.0], []
        for start, end in zip([1e-6] + times, times):
            if start == 1e-6:
                mesh.append(start)
            steps = max(2, round(per_decade * np.log10(end / start)))
            mesh += [float(v) for v in np.geomspace(start, end, steps + 1)[1:-1]] + [end]
            marks.append(len(mesh) - 1)
        states = collocation(f, jacobian, exact([1, 0, 0]), mesh, stages)
        return [states[mark] for mark in marks]

    states = solve(12, 8)
    case = {
        "times": times,
        "series": series(["y1", "y2", "y3"], states),
        "agreement": relative(states, solve(6, 10)),
        "published": {
            "source": SOURCE + ", problem ROBER, reference solution at the end of the interval",
            "time": 1e11,
            "y1": 0.2083340149701255e-07,
            "y2": 0.8333360770334713e-13,
            "y3": 0.9999999791665050e00,
        },
    }
    case["published"]["difference"] = relative([states[-1]], [[case["published"][k] for k in ("y1", "y2", "y3")]])
    write("robertson", METHOD, [case])


def van_der_pol():
    mu = mp.mpf(1000)

    def f(t, y):
        return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]

    def jacobian(y):
        return [[0.0, 1.0], [-2 * mu * y[0] * y[1] - 1, mu * (1 - y[0] ** 2)]]

    # The jumps of the relaxation oscillation, found by a first run in doubles, are resolved by a mesh that follows it.
    def adapted(stride):
        import scipy.integrate

        run = scipy.integrate.solve_ivp(
            lambda t, y: [y[1], 1000 * (1 - y[0] ** 2) * y[1] - y[0]],
            (0, 2000.0),
            [2.0, 0.0],
            method="Radau",
            rtol=1e-7,
            atol=1e-10,
        )
        return run.t, stride

    points, _ = adapted(1)

    def solve(stride, stages):
        mesh = sorted(set([float(p) for p in points[::stride]] + [500.0, 1000.0, 1500.0, 2000.0]))
        states = dict(zip(mesh, collocation(f, jacobian, exact([2, 0]), mesh, stages)))
        return [states[t] for t in (500.0, 1000.0, 1500.0, 2000.0)]

    states = solve(1, 8)
    case = {
        "set": {"mu": 1000.0},
        "times": [500.0, 1000.0, 1500.0, 2000.0],
        "series": series(["y", "v"], states),
        "agreement": relative(states, solve(2, 10)),
        "published": {
            "source": SOURCE + ", problem VDPOL at time 2: velocity divided and time multiplied by mu",
            "time": 2000.0,
            "y": 0.1706167732170483e1,
            "v": -0.8928097010247975e-3,
        },
    }
    case["published"]["difference"] = relative([states[-1]], [[case["published"]["y"], case["published"]["v"]]])
    write("van_der_pol_stiff", METHOD, [case], model="van_der_pol")


if __name__ == "__main__":
    robertson()
    van_der_pol()
