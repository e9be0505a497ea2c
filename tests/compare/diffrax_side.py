"""Solves the problems of `make compare` with diffrax (JAX on the CPU, float64, compiled, one thread).

Times are the process's processor time. Reads one JSON question a line (problem, method, tolerance, gradient, times) and answers in one: the state at the end or
the gradient by the parameters, the seconds of one run, and for the first question of a kind those of tracing, compiling and
running it.
"""

import json
import math
import os
import sys
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import diffrax
import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)


def lotka_volterra(t, y, p):
    return jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]])


def robertson(t, y, p):
    r1, r2, r3 = p[0] * y[0], p[1] * y[1] ** 2, p[2] * y[1] * y[2]
    return jnp.stack([r3 - r1, r1 - r2 - r3, r2])


def van_der_pol(t, y, p):
    return jnp.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]])


def chain(t, y, p):
    springs = p.shape[0] // 2
    x, v = y[: springs - 1], y[springs - 1 :]
    d = jnp.diff(jnp.pad(x, 1))
    f = d * (p[:springs] + p[springs:] * d**2)
    return jnp.concatenate([v, f[1:] - f[:-1] - 0.05 * v])


def species(t, y, p):
    n = y.shape[0]
    return p[:n] * y * (1.0 - p[n:].reshape(n, n) @ y)


# field, parameters, start, end, scales of the absolute tolerance, index of the variable whose gradient is asked for
def problem(name):
    if name.startswith("chain"):
        springs = int(name.removeprefix("chain"))
        k = [1.0 + 0.5 * math.sin(i) for i in range(1, springs + 1)]
        b = [0.2 + 0.1 * math.cos(i) for i in range(1, springs + 1)]
        x = [math.sin(0.7 * i) for i in range(1, springs)]
        return chain, k + b, x + [0.0] * (springs - 1), 20.0, [1.0] * (2 * springs - 2), springs // 2 - 1
    if name.startswith("species"):
        n = int(name.removeprefix("species"))
        numbers = range(1, n + 1)
        r = [1.0 + 0.5 * math.sin(i) for i in numbers]
        a = [1.0 if i == j else 0.5 * math.sin(i + 2 * j) / n for i in numbers for j in numbers]
        return species, r + a, [0.5 + 0.3 * math.cos(i) for i in numbers], 20.0, [1.0] * n, 0
    stiff = [0.04, 3e7, 1e4]
    return {
        "lotka_volterra": (lotka_volterra, [1.5, 1.0, 3.0, 1.0], [1.0, 1.0], 20.0, [1.0, 1.0], 0),
        "robertson 40": (robertson, stiff, [1.0, 0.0, 0.0], 40.0, [1.0, 1e-4, 1.0], 0),
        "robertson 1e11": (robertson, stiff, [1.0, 0.0, 0.0], 1e11, [1e-6, 1e-10, 1e-6], 0),
        "van_der_pol": (van_der_pol, [1000.0], [2.0, 0.0], 2000.0, [1.0, 1.0], 0),
    }[name]


def build(name, method, gradient):
    field, parameters, start, end, scale, index = problem(name)
    parameters, start, scale = jnp.array(parameters), jnp.array(start), jnp.array(scale)

    def solution(p, tolerance):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            getattr(diffrax, method)(),
            0.0,
            end,
            None,
            start,
            p,
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * scale, pcoeff=0.4, icoeff=0.3),
            max_steps=4096 if gradient else 4_000_000,
            throw=False,
            **({} if gradient else {"adjoint": diffrax.ForwardMode()}),
        )

    if gradient:
        run = jax.jit(lambda p, tolerance: jax.grad(lambda p: solution(p, tolerance).ys[0, index])(p))
    else:
        run = jax.jit(lambda p, tolerance: solution(p, tolerance).ys[0])
    return lambda tolerance: jax.block_until_ready(run(parameters, tolerance))


def main():
    built = {}
    print(json.dumps({"version": f"diffrax {diffrax.__version__}, jax {jax.__version__}"}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        kind = question["problem"], question["method"], question["gradient"]
        answer = {}
        if kind not in built:
            begin = time.process_time()
            built[kind] = build(*kind)
            built[kind](question["tolerance"])
            answer["first_s"] = time.process_time() - begin
        run = built[kind]
        begin = time.process_time()
        for _ in range(question["times"]):
            values = run(question["tolerance"])
        answer["seconds"] = (time.process_time() - begin) / question["times"]
        answer["values"] = [value if math.isfinite(value) else None for value in values.tolist()]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
