"""Draws the plots of docs/models from scipy's solutions of the fixtures' problems."""

import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mpmath as mp
import numpy as np
from scipy.integrate import solve_ivp

import hybrid

HERE = pathlib.Path(__file__).parent
PAGES = HERE.parent.parent / "docs" / "models"
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
                     "grid.alpha": 0.25, "lines.linewidth": 1.3, "svg.fonttype": "none", "svg.hashsalt": "orrery"})  # fmt: skip


def fixture(name, case=0):
    return json.loads((HERE / f"{name}.json").read_text())["cases"][case]


def figure(name, panels, xlabel, marks=None, logx=False):
    """One column of panels `(ylabel, [(label, x, y)])`; `marks` are the fixture's own points `(panel, x, y)`."""
    fig, axes = plt.subplots(len(panels), 1, figsize=(6.4, 1.1 + 1.5 * len(panels)), sharex=True, squeeze=False)
    for axis, (ylabel, lines) in zip(axes[:, 0], panels):
        for label, x, y in lines:
            axis.plot(x, y, label=label)
        axis.set_ylabel(ylabel)
        if logx:
            axis.set_xscale("log")
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8)
    for panel, x, y in marks or []:
        axes[panel, 0].plot(x, y, "k.", ms=4)
    axes[-1, 0].set_xlabel(xlabel)
    fig.tight_layout()
    fig.savefig(PAGES / f"{name}.svg", metadata={"Date": None})
    plt.close(fig)
    print(name, (PAGES / f"{name}.svg").stat().st_size, "bytes")


def dense(f, start, end, rows=400, method="LSODA"):
    run = solve_ivp(f, (0, end), start, method, np.linspace(0, end, rows), rtol=1e-8, atol=1e-10)
    return run.t, run.y


def points(name, panels, case=0):
    one = fixture(name, case)
    return [(panel, one["times"], one["series"][variable]) for panel, variable in panels]


def main():
    PAGES.mkdir(parents=True, exist_ok=True)
    t, (x, y) = dense(lambda t, s: [1.5 * s[0] - s[0] * s[1], s[0] * s[1] - 3 * s[1]], [1, 1], 20)
    figure("lotka_volterra", [("population", [("prey", t, x), ("predators", t, y)])], "time (s)",
           points("lotka_volterra", [(0, "x"), (0, "y")]))  # fmt: skip

    t, (y, v) = dense(lambda t, s: [s[1], 1000 * (1 - s[0] ** 2) * s[1] - s[0]], [2, 0], 3000, 1500, "Radau")
    figure("van_der_pol", [("deflection", [("", t, y)])], "time (s)", points("van_der_pol_stiff", [(0, "y")]))

    one = fixture("robertson")
    run = solve_ivp(
        lambda t, s: [-0.04 * s[0] + 1e4 * s[1] * s[2], 0.04 * s[0] - 1e4 * s[1] * s[2] - 3e7 * s[1] ** 2, 3e7 * s[1] ** 2],
        (0, 1e11), [1, 0, 0], "Radau", np.geomspace(1e-5, 1e11, 300), rtol=1e-9, atol=1e-18,
    )  # fmt: skip
    figure("robertson", [("fraction", [("A", run.t, run.y[0]), ("C", run.t, run.y[2])]), ("fraction of B", [("", run.t, run.y[1])])],
           "time (s)", points("robertson", [(0, "y1"), (0, "y3"), (1, "y2")]), logx=True)  # fmt: skip

    times = np.linspace(0, 6, 600)
    lines = []
    for k, label in ((0.0, "no drag"), (0.1, "k = 0.1 per m")):
        states, _ = hybrid.Ball(9.81, 0.8, k, 1.0).run(times[times <= 3])
        lines.append((label, times[times <= 3], [float(s[0]) for s in states]))
    figure("bouncing_ball", [("height (m)", lines)], "time (s)",
           points("bouncing_ball", [(0, "h")], 0) + points("bouncing_ball", [(0, "h")], 1))  # fmt: skip

    times = [float(v) for v in np.linspace(0, 5400, 271)]
    rows, _ = hybrid.battery_in_doubles(times)
    column = lambda index: [row[index] for row in rows]
    figure("battery_2rc", [("voltage (V)", [("", times, column(0))]), ("current (A)", [("", times, column(1))]),
                           ("state of charge", [("", times, column(2))]), ("temperature (K)", [("", times, column(3))])],
           "time (s)", points("battery_2rc", [(0, "v"), (1, "i"), (2, "soc"), (3, "temperature")]))  # fmt: skip

    marks, lines = [], []
    for case, label in enumerate(("discharge at 5 A", "discharge at 2.5 A", "charge at 5 A")):
        one = fixture("spm", case)
        charge = np.array(one["times"]) * abs(one["inputs"]["i"]) / 3600
        lines.append((label, charge, one["series"]["v"]))
    figure("spm", [("voltage (V)", lines)], "charge moved (A h)")

    def tank(t, s):
        rate = 7.2e10 / 60 * np.exp(-8750 / s[1]) * s[0]
        return [(1000 - s[0]) / 60 - rate, (350 - s[1]) / 60 + 5e4 * rate / 239e3 + 5e4 / 60 / 23900 * (305 - s[1])]

    t, (c, temperature) = dense(tank, [500, 350], 600, 600)
    figure("cstr", [("A (mol/m3)", [("", t, c)]), ("temperature (K)", [("", t, temperature)])], "time (s)",
           points("cstr", [(0, "c"), (1, "temperature")]))  # fmt: skip

    times = np.linspace(0, 100_000, 500)
    rows = [hybrid.dose_amounts(t, 320.0, 1.0, 28800.0, 1.5, 2.8, 32.0) for t in times]
    figure("pk1", [("in plasma (mg/L)", [("", times / 3600, [float(body) / 32 for _, body in rows])])], "time (h)",
           [(0, np.array(x) / 3600, y) for _, x, y in points("pk1", [(0, "concentration")])])  # fmt: skip

    one = fixture("bicycle")
    figure("bicycle", [("position to the left (m)", [("", one["series"]["x"], one["series"]["y"])]),
                       ], "position ahead (m)", [(0, one["series"]["x"], one["series"]["y"])])  # fmt: skip


if __name__ == "__main__":
    main()
