"""Times diffrax (JAX on the CPU, float64, compiled) on two shipped models at a matched achieved error.

For each case the loosest tolerance whose result is within `target` of the reference is found first, then that run is
timed: the best and the median of repeated calls after compilation, one thread. Prints one JSON line a case. No part of
`make test`.
"""

import json
import os
import pathlib
import statistics
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import diffrax
import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
HERE = pathlib.Path(__file__).parent


def lotka_volterra(t, y, p):
    return jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]])


def robertson(t, y, p):
    r1, r2, r3 = p[0] * y[0], p[1] * y[1] ** 2, p[2] * y[1] * y[2]
    return jnp.stack([r3 - r1, r1 - r2 - r3, r2])


def reference(name, variables, end):
    case = json.loads((HERE / f"{name}.json").read_text())["cases"][0]
    index = case["times"].index(end)
    return jnp.array([case["series"][variable][index] for variable in variables])


def best_of(call, budget_s=3.0):
    times = []
    while sum(times) < budget_s and len(times) < 200 or len(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def run(name, field, variables, parameters, start, end, solver, target, scale, gradient):
    goal = reference(name, variables, end)
    parameters, start, scale = jnp.array(parameters), jnp.array(start), jnp.array(scale)

    def solution(p, tolerance):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver(),
            0.0,
            end,
            None,
            start,
            p,
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * scale, pcoeff=0.4, icoeff=0.3),
            max_steps=200_000 if gradient else 4_000_000,
            throw=False,
            **({} if gradient else {"adjoint": diffrax.ForwardMode()}),
        )

    compiled = jax.jit(solution)
    begin = time.perf_counter()
    jax.block_until_ready(compiled(parameters, 1e-3).ys)
    line = {"tool": f"diffrax {diffrax.__version__}", "problem": name, "until": end, "method": solver.__name__,
            "compile_and_first_run_s": time.perf_counter() - begin, "target": target}  # fmt: skip
    for exponent in range(6, 29):
        tolerance = 10 ** (-exponent / 2)
        result = compiled(parameters, tolerance)
        error = float(jnp.max(jnp.abs(result.ys[0] - goal) / (jnp.abs(goal) if name == "robertson" else 1.0)))
        if error <= target:
            break
    else:
        return {**line, "failed": "no tolerance reaches the target"}
    best, median = best_of(lambda: compiled(parameters, tolerance).ys)
    line |= {"rtol": tolerance, "error": error, "steps": int(result.stats["num_steps"]), "best_s": best, "median_s": median}
    if gradient:
        graded = jax.jit(jax.value_and_grad(lambda p: solution(p, tolerance).ys[0, 0]))
        begin = time.perf_counter()
        jax.block_until_ready(graded(parameters))
        line["gradient_compile_and_first_run_s"] = time.perf_counter() - begin
        line["gradient_best_s"], line["gradient_median_s"] = best_of(lambda: graded(parameters))
    return line


def main():
    prey = ("lotka_volterra", lotka_volterra, ["x", "y"], [1.5, 1.0, 3.0, 1.0], [1.0, 1.0])
    stiff = ("robertson", robertson, ["y1", "y2", "y3"], [0.04, 3e7, 1e4], [1.0, 0.0, 0.0])
    for solver in (diffrax.Tsit5, diffrax.Kvaerno5):
        print(json.dumps(run(*prey, 20.0, solver, 1e-8, [1.0, 1.0], True)), flush=True)
    for solver, end in ((diffrax.Tsit5, 40.0), (diffrax.Kvaerno5, 40.0), (diffrax.Kvaerno5, 1e11)):
        print(json.dumps(run(*stiff, end, solver, 1e-6, [1.0, 1e-4, 1.0], False)), flush=True)


if __name__ == "__main__":
    main()
