"""The bouncing ball and the doses by mouth in closed form, the battery by extrapolation with located switches."""

import mpmath as mp
import scipy.integrate
import numpy as np

from multiprecision import advance, exact, gradient, largest_difference, series, write


class Ball:
    """Flight with quadratic drag between impacts, in closed form; without drag its limit."""

    def __init__(self, g, e, k, h0, v0=0):
        self.g, self.e, self.k, self.h0, self.v0 = exact([g, e, k, h0, v0])

    def fly(self, h, v, t):
        g, k = self.g, self.k
        if k == 0:
            return h + v * t - g * t**2 / 2, v - g * t
        fall = mp.sqrt(g / k)
        if v > 0:
            angle = mp.atan(v / fall)
            rise = angle * fall / g
            if t <= rise:
                now = angle - g * t / fall
                return h + mp.log(mp.cos(now) / mp.cos(angle)) / k, fall * mp.tan(now)
            h, v, t = h - mp.log(mp.cos(angle)) / k, mp.mpf(0), t - rise
        now, then = mp.atanh(-v / fall), mp.atanh(-v / fall) + g * t / fall
        return h - mp.log(mp.cosh(then) / mp.cosh(now)) / k, -fall * mp.tanh(then)

    def impact(self, h, v):
        """Time until the ground."""
        g, k = self.g, self.k
        if k == 0:
            return (v + mp.sqrt(v**2 + 2 * g * h)) / g
        fall, rise = mp.sqrt(g / k), mp.mpf(0)
        if v > 0:
            angle = mp.atan(v / fall)
            rise, h, v = angle * fall / g, h - mp.log(mp.cos(angle)) / k, mp.mpf(0)
        now = mp.atanh(-v / fall)
        return rise + (mp.acosh(mp.exp(k * h) * mp.cosh(now)) - now) * fall / g

    def run(self, times):
        states, impacts = [], []
        h, v, since = self.h0, self.v0, mp.mpf(0)
        after = since + self.impact(h, v)
        for time in times:
            while after <= time:
                _, speed = self.fly(h, v, after - since)
                impacts.append(after)
                h, v, since = mp.mpf(0), -self.e * speed, after
                after = since + self.impact(h, v)
            states.append([*self.fly(h, v, mp.mpf(time) - since), mp.mpf(len(impacts))])
        return states, impacts


def bouncing_ball():
    cases = []
    for k, start, end in ((0.0, 1.0, 3.0), (0.1, 1.0, 3.0), (0.1, 10.0, 6.0)):
        point = {"g": 9.81, "e": 0.8, "k": k, "h0": start, "v0": 0.0}
        times = [end * n / 20 for n in range(21)]
        states, impacts = Ball(**point).run(times)
        # At k = 0 the closed form has no derivative on its lower side.
        names = [name for name in point if not (name == "k" and k == 0)]
        gradients = [
            {
                "of": of,
                "at": end,
                "gradient": gradient(lambda **p: Ball(**p).run([end])[0][0][index], point, names),
            }
            for index, of in enumerate(["h", "v"])
        ]
        cases.append(
            {
                "set": {"k": k, "h0": start},
                "times": times,
                "series": series(["h", "v", "bounces"], states),
                "events": [float(t) for t in impacts],
                "gradients": gradients,
                "agreement": ball_in_doubles(point, times, states),
            }
        )
    method = "closed form in 34 digits (parabolas; with drag the tangent and hyperbolic tangent of time), gradients by " \
        "central differences of it; `agreement` is the largest relative difference from scipy's DOP853 with events"
    write("bouncing_ball", method, cases)


def ball_in_doubles(point, times, states):
    g, e, k = point["g"], point["e"], point["k"]
    ground = lambda t, y: y[0]
    ground.terminal, ground.direction = True, -1
    now, y, found = 0.0, [point["h0"], 0.0], []
    while now < times[-1]:
        run = scipy.integrate.solve_ivp(
            lambda t, y: [y[1], -g - k * y[1] * abs(y[1])], (now, times[-1]), y, method="DOP853", events=ground,
            rtol=3e-14, atol=1e-15, dense_output=True,
        )  # fmt: skip
        found += [list(run.sol(t)) for t in times if now <= t and (t < run.t[-1] or run.status == 0 and t == run.t[-1])]
        now, y = run.t[-1], [0.0, -e * run.y[1, -1]]
    return largest_difference([row[:2] for row in states], found)


def battery_rates(mode, p):
    """Derivatives of (soc, temperature, u1, u2) in a mode, and the current that the second phase would have."""
    gas, capacity, t_ref, ambient = 8.31446261815324, 3060.0, 298.15, 298.15

    def parts(s):
        m = mp if isinstance(s[0], mp.mpf) else np
        soc, temperature, u1, u2 = s
        ocv = -1.031 * m.exp(-35 * soc) + 3.685 + 0.2156 * soc - 0.1178 * soc**2 + 0.3201 * soc**3
        ocv += p["entropic"] * (temperature - t_ref)
        warm = m.exp(p["activation"] / gas * (1 / temperature - 1 / t_ref))
        r0 = (0.1562 * m.exp(-24.37 * soc) + 0.07446) * warm
        r1 = (0.3208 * m.exp(-29.14 * soc) + 0.04669) * warm
        r2 = (6.603 * m.exp(-155.2 * soc) + 0.04984) * warm
        c1 = -752.9 * m.exp(-13.51 * soc) + 703.6
        c2 = -6056 * m.exp(-27.12 * soc) + 4475
        i_cv = (p["v_max"] - ocv - u1 - u2) / r0
        i = {1: p["i_cc"], 2: i_cv, 3: 0 * soc}[mode]
        return ocv + u1 + u2 + r0 * i, i, i_cv, (r0, r1, r2, c1, c2)

    def f(t, s):
        _, i, _, (r0, r1, r2, c1, c2) = parts(s)
        soc, temperature, u1, u2 = s
        heat = r0 * i**2 + u1**2 / r1 + u2**2 / r2 + p["entropic"] * temperature * i
        return [
            i / capacity,
            (heat - p["loss"] * (temperature - ambient)) / p["heat_capacity"],
            (i - u1 / r1) / c1,
            (i - u2 / r2) / c2,
        ]

    return f, parts


BATTERY = {"i_cc": 0.85, "v_max": 4.1, "i_cut": 0.0425, "activation": 2e4, "entropic": -1e-4, "loss": 0.04,
           "heat_capacity": 20.0}  # fmt: skip
START = [0.2, 298.15, 0.0, 0.0]


def battery_run(times, **changes):
    """Rows (v, i, soc, temperature, u1, u2, mode) and the two switches."""
    p = {name: mp.mpf(value) for name, value in {**BATTERY, **changes}.items()}
    rows, switches, mode, now, state = [], [], 1, mp.mpf(times[0]), exact(START)
    for time in times:
        while now < time:
            f, parts = battery_rates(mode, p)
            limit = {1: p["i_cc"], 2: p["i_cut"]}.get(mode)
            guard = (lambda t, s: parts(s)[2] - limit) if limit is not None else None
            now, state, stopped = advance(f, now, state, time, guard, first=20)
            if stopped:
                switches.append(now)
                mode += 1
        _, parts = battery_rates(mode, p)
        v, i, _, _ = parts(state)
        rows.append([v, i, *state, mp.mpf(mode)])
    return rows, switches


def battery_in_doubles(times):
    rows, switches, mode, now, state = [], [], 1, float(times[0]), list(START)
    pending = [float(t) for t in times]
    while pending:
        f, parts = battery_rates(mode, BATTERY)
        limit = {1: BATTERY["i_cc"], 2: BATTERY["i_cut"], 3: -1e9}[mode]
        guard = lambda t, s: parts(s)[2] - limit
        guard.terminal, guard.direction = True, -1
        run = scipy.integrate.solve_ivp(
            f, (now, float(times[-1])), state, method="DOP853", events=guard, rtol=3e-14, atol=1e-15, dense_output=True
        )
        while pending and (pending[0] < run.t[-1] or run.status == 0):
            s = run.sol(pending[0]) if pending[0] > now else np.array(state)
            v, i, _, _ = parts(s)
            rows.append([v, i, *s, mode])
            pending.pop(0)
        now, state = run.t[-1], list(run.y[:, -1])
        if run.status == 1:
            switches.append(now)
            mode += 1
    return rows, switches


def battery():
    times = [float(t) for t in range(0, 5401, 300)]
    rows, switches = battery_run(times)
    others, other_switches = battery_in_doubles(times)
    gradients = []
    for of, column, at in (("soc", 2, 3300.0), ("temperature", 3, 5400.0)):
        value = lambda **p: battery_run([0.0, at], **p)[0][-1][column]
        gradients.append({"of": of, "at": at, "gradient": gradient(value, BATTERY, ["i_cc", "v_max", "i_cut", "activation"])})
    names = ["v", "i", "soc", "temperature", "u1", "u2", "mode"]
    case = {
        "times": times,
        "series": series(names, rows),
        "events": [float(t) for t in switches],
        "gradients": gradients,
        "agreement": largest_difference(rows, others),
        "events_agreement": largest_difference([switches], [other_switches]),
    }
    method = "Gragg-Bulirsch-Stoer extrapolation in 34 digits between switches, these by false position on the length of " \
        "a step; gradients by central differences; `agreement` is the difference from scipy's DOP853 with events"
    write("battery_2rc", method, [case])


def dose_amounts(time, dose, available, interval, ka, clearance, volume):
    """Gut and body by superposition of Bateman's function, one for each dose swallowed by then."""
    ka, ke, time = ka / 3600, clearance / 3600 / volume, mp.mpf(time)
    gut = body = mp.mpf(0)
    n = 0
    while n * interval <= time:
        since = time - n * interval
        gut += available * dose * mp.exp(-ka * since)
        body += available * dose * ka / (ka - ke) * (mp.exp(-ke * since) - mp.exp(-ka * since))
        n += 1
    return gut, body


def pk1():
    point = {"dose": 320.0, "available": 1.0, "interval": 28800.0, "ka": 1.5, "clearance": 2.8, "volume": 32.0}
    end = 100_000.0
    times = [float(t) for t in range(0, 100_001, 5000)]
    rows = []
    for time in times:
        gut, body = dose_amounts(time, *exact(point.values()))
        rows.append([body / mp.mpf(point["volume"]), gut, body])

    def value(**p):
        return dose_amounts(end, *exact(p.values()))[1] / mp.mpf(p["volume"])

    gradients = [{"of": "concentration", "at": end, "gradient": gradient(value, point, list(point))}]
    case = {
        "times": times,
        "series": series(["concentration", "gut", "body"], rows),
        "events": [float(n * 28800) for n in range(1, 4)],
        "gradients": gradients,
        "agreement": largest_difference(rows, doses_in_doubles(point, times)),
    }
    method = "superposition of Bateman's function in 34 digits, gradients by central differences of it; `agreement` is " \
        "the difference from scipy's DOP853 restarted at every dose"
    write("pk1", method, [case])


def doses_in_doubles(p, times):
    ka, ke = p["ka"] / 3600, p["clearance"] / 3600 / p["volume"]
    rows, now, state = [], 0.0, [p["dose"], 0.0]
    while now < times[-1]:
        run = scipy.integrate.solve_ivp(
            lambda t, s: [-ka * s[0], ka * s[0] - ke * s[1]], (now, now + p["interval"]), state, method="DOP853",
            rtol=3e-14, atol=1e-13, dense_output=True,
        )  # fmt: skip
        inside = [t for t in times if now <= t < now + p["interval"]]
        rows += [[run.sol(t)[1] / p["volume"], *run.sol(t)] for t in inside]
        now, state = now + p["interval"], [run.y[0, -1] + p["dose"], run.y[1, -1]]
    return rows


if __name__ == "__main__":
    bouncing_ball()
    pk1()
    battery()
