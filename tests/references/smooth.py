"""Lotka-Volterra, van der Pol (mu = 5), the stirred tank and the bicycle in 34 digits, with gradients by differences."""

import mpmath as mp

from multiprecision import advance, doubles, exact, gradient, largest_difference, series, trajectory, write

METHOD = "Gragg-Bulirsch-Stoer extrapolation in 34 digits, local error 1e-25; gradients by central differences of it; " \
    "`agreement` is the largest relative difference from scipy's DOP853 at rtol 3e-14"


def case(f, names, start, times, **more):
    states = trajectory(f, exact(start), times)
    agreement = largest_difference(states, doubles(f, start, times))
    return {"times": [float(t) for t in times], "series": series(names, states), "agreement": agreement, **more}


def library(value):
    """mpmath's functions for its numbers, math's for doubles."""
    import math

    return mp if isinstance(value, mp.mpf) else math


def lotka_volterra():
    def rates(alpha, beta, gamma, delta):
        return lambda t, s: [alpha * s[0] - beta * s[0] * s[1], delta * s[0] * s[1] - gamma * s[1]]

    point = {"alpha": 1.5, "beta": 1.0, "gamma": 3.0, "delta": 1.0, "x0": 1.0, "y0": 1.0}

    def at(index, end):
        def value(alpha, beta, gamma, delta, x0, y0):
            numbers = exact([alpha, beta, gamma, delta])
            return advance(rates(*numbers), 0, exact([x0, y0]), end)[1][index]

        return value

    gradients = [
        {"of": of, "at": 10.0, "gradient": gradient(at(index, 10), point, list(point))} for index, of in enumerate("xy")
    ]
    one = case(rates(1.5, 1.0, 3.0, 1.0), ["x", "y"], [1.0, 1.0], list(range(0, 21, 2)), gradients=gradients)
    write("lotka_volterra", METHOD, [one])


def van_der_pol():
    def rates(mu):
        return lambda t, s: [s[1], mu * (1 - s[0] ** 2) * s[1] - s[0]]

    def value(mu):
        return advance(rates(mp.mpf(mu)), 0, exact([2, 0]), 10)[1][0]

    gradients = [{"of": "y", "at": 10.0, "gradient": gradient(value, {"mu": 5.0}, ["mu"])}]
    one = case(rates(5.0), ["y", "v"], [2.0, 0.0], list(range(0, 21, 2)), set={"mu": 5.0}, gradients=gradients)
    write("van_der_pol", METHOD, [one])


def cstr():
    def rates(coolant, ua, k0):
        volume, q, heat_rate = 0.1, 0.1 / 60, 1000.0 * 239.0

        def f(t, s):
            rate = k0 * library(s[1]).exp(-8750.0 / s[1]) * s[0]
            return [
                (q * (1000.0 - s[0]) - volume * rate) / volume,
                (q * heat_rate * (350.0 - s[1]) + 5e4 * volume * rate + ua * (coolant - s[1])) / (volume * heat_rate),
            ]

        return f

    point = {"coolant": 305.0, "ua": 5e4 / 60, "k0": 7.2e10 / 60}

    def value(coolant, ua, k0):
        return advance(rates(*exact([coolant, ua, k0])), 0, exact([500, 350]), 600, first=5)[1][1]

    gradients = [{"of": "temperature", "at": 600.0, "gradient": gradient(value, point, ["ua", "k0"])}]
    times = list(range(0, 601, 60))
    one = case(
        rates(*point.values()), ["c", "temperature"], [500.0, 350.0], times, inputs={"coolant": 305.0}, gradients=gradients
    )
    write("cstr", METHOD, [one])


def bicycle():
    def rates(mass, cf):
        inertia, lf, lr, cr, drag, steer, drive = 2873.0, 1.1, 1.58, 160000.0, 0.4, 0.05, 500.0

        def f(t, s):
            m = library(s[0])
            _, _, yaw, speed, drift, turning = s
            front = cf * (steer - m.atan((drift + lf * turning) / speed))
            rear = -cr * m.atan((drift - lr * turning) / speed)
            return [
                speed * m.cos(yaw) - drift * m.sin(yaw),
                speed * m.sin(yaw) + drift * m.cos(yaw),
                turning,
                (drive - front * m.sin(steer) - drag * speed**2) / mass + drift * turning,
                (front * m.cos(steer) + rear) / mass - speed * turning,
                (lf * front * m.cos(steer) - lr * rear) / inertia,
            ]

        return f

    names = ["x", "y", "yaw", "speed", "drift", "yaw_rate"]
    start = [0.0, 0.0, 0.0, 20.0, 0.0, 0.0]
    point = {"mass": 1573.0, "cf": 160000.0, "speed0": 20.0}

    def value(mass, cf, speed0):
        return advance(rates(*exact([mass, cf])), 0, exact([0, 0, 0, speed0, 0, 0]), 4)[1][1]

    gradients = [{"of": "y", "at": 4.0, "gradient": gradient(value, point, list(point))}]
    inputs = {"steer": 0.05, "drive": 500.0}
    times = [0.5 * k for k in range(9)]
    one = case(rates(1573.0, 160000.0), names, start, times, inputs=inputs, gradients=gradients)
    write("bicycle", METHOD, [one])


if __name__ == "__main__":
    lotka_volterra()
    van_der_pol()
    cstr()
    bicycle()
