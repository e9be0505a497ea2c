"""PyBaMM's single-particle model with the parameters of Chen et al. (2020) on 20 equal finite volumes a particle."""

import os

os.environ["PYBAMM_DISABLE_TELEMETRY"] = "true"

import numpy as np
import pybamm

from multiprecision import write

WANTED = [
    "Electrode height [m]", "Electrode width [m]", "Ambient temperature [K]", "Reference temperature [K]",
    "Initial concentration in electrolyte [mol.m-3]", "Number of electrodes connected in parallel to make a cell",
    "Negative electrode thickness [m]", "Negative electrode active material volume fraction",
    "Negative particle radius [m]", "Negative particle diffusivity [m2.s-1]",
    "Maximum concentration in negative electrode [mol.m-3]", "Initial concentration in negative electrode [mol.m-3]",
    "Negative electrode OCP entropic change [V.K-1]", "Positive electrode thickness [m]",
    "Positive electrode active material volume fraction", "Positive particle radius [m]",
    "Positive particle diffusivity [m2.s-1]", "Maximum concentration in positive electrode [mol.m-3]",
    "Initial concentration in positive electrode [mol.m-3]", "Positive electrode OCP entropic change [V.K-1]",
]  # fmt: skip


def solve(current, end, rows, start):
    model = pybamm.lithium_ion.SPM()
    values = pybamm.ParameterValues("Chen2020")
    values["Current function [A]"] = current
    for side, value in zip(("negative", "positive"), start):
        values[f"Initial concentration in {side} electrode [mol.m-3]"] = value
    points = {"x_n": 20, "x_s": 20, "x_p": 20, "r_n": 20, "r_p": 20}
    simulation = pybamm.Simulation(
        model, parameter_values=values, var_pts=points, solver=pybamm.IDAKLUSolver(rtol=1e-11, atol=1e-12)
    )
    times = np.linspace(0, end, rows + 1)
    solution = simulation.solve([0, end], t_interp=times)
    negative = solution["X-averaged negative particle surface stoichiometry"](times)
    positive = solution["X-averaged positive particle surface stoichiometry"](times)
    voltage = solution["Voltage [V]"](times)
    assert solution.t[-1] == end, "a cut-off ended the run early"
    constants = {"F": pybamm.constants.F.value, "R": pybamm.constants.R.value}
    case = {
        "inputs": {"i": current},
        "set": {"c0_n": start[0], "c0_p": start[1]},
        "times": times.tolist(),
        "series": {"v": voltage.tolist(), "x": negative.tolist(), "y": positive.tolist()},
    }
    return case, {**{name: values[name] for name in WANTED}, **constants}


def main():
    cases, parameters = [], {}
    full, half = (29866.0, 17038.0), (15000.0, 38000.0)
    for current, end, start in ((5.0, 3400.0, full), (2.5, 6800.0, full), (-5.0, 1200.0, half)):
        case, parameters = solve(current, end, 20, start)
        case["agreement"] = float(np.max(np.abs(np.array(case["series"]["v"]) - written_out(case, parameters))))
        cases.append(case)
        print(current, case["series"]["v"][0], case["series"]["v"][-1], case["agreement"])
    method = "PyBaMM's SPM, default options and uniform mesh of 20 volumes a particle, IDAKLU at rtol 1e-11; " \
        "`agreement` in volts is the difference from the same equations written out in numpy (scipy's Radau)"
    write("spm", method, cases, ("pybamm", "pybammsolvers", "numpy", "scipy"), parameters=parameters)


def written_out(case, p):
    """The model of deploy/models/spm.mo in numpy."""
    from scipy.integrate import solve_ivp

    n, current = 20, case["inputs"]["i"]
    area = p["Electrode height [m]"] * p["Electrode width [m]"]
    k = np.arange(1, n + 1)
    voltages = 0
    signs = {"Negative": 1, "Positive": -1}
    for side, sign in signs.items():
        low = side.lower()
        radius, fraction = p[f"{side} particle radius [m]"], p[f"{side} electrode active material volume fraction"]
        j = sign * current / (area * p[f"{side} electrode thickness [m]"] * 3 * fraction / radius)
        d, dr = p[f"{side} particle diffusivity [m2.s-1]"], radius / n

        def f(t, c):
            flux = np.concatenate([[0], -d * np.diff(c) / dr, [j / p["F"]]])
            return 3 * ((k - 1) ** 2 * flux[:-1] - k**2 * flux[1:]) / ((k**3 - (k - 1) ** 3) * dr)

        matrix = np.array([f(0, e) - f(0, 0 * e) for e in np.eye(n)]).T
        start = np.full(n, case["set"][f"c0_{low[0]}"])
        c = solve_ivp(f, (0, case["times"][-1]), start, "Radau", case["times"], rtol=1e-10, atol=1e-7, jac=matrix).y
        top = p[f"Maximum concentration in {low} electrode [mol.m-3]"]
        s = (3 * c[-1] - c[-2]) / 2 / top
        rate = 6.48e-7 if sign > 0 else 3.42e-6
        j0 = rate * top * np.sqrt(p["Initial concentration in electrolyte [mol.m-3]"]) * np.sqrt(s * (1 - s))
        eta = 2 * p["R"] * p["Ambient temperature [K]"] / p["F"] * np.arcsinh(j / 2 / j0)
        if sign > 0:
            u = 1.9793 * np.exp(-39.3631 * s) + 0.2482 - 0.0909 * np.tanh(29.8538 * (s - 0.1234))
            u += -0.04478 * np.tanh(14.9159 * (s - 0.2769)) - 0.0205 * np.tanh(30.4444 * (s - 0.6103))
        else:
            u = -0.8090 * s + 4.4875 - 0.0428 * np.tanh(18.5138 * (s - 0.5542))
            u += -17.7326 * np.tanh(15.7890 * (s - 0.3117)) + 17.5842 * np.tanh(15.9308 * (s - 0.3120))
        voltages = voltages - sign * (u + eta)
    return voltages


if __name__ == "__main__":
    main()
