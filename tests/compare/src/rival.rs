//! diffsol on the same problems, dense, with analytic Jacobians and nalgebra's matrices.

use diffsol::{
    NalgebraContext, NalgebraLU, NalgebraMat, NalgebraVec, OdeBuilder, OdeEquationsImplicit, OdeSolverMethod,
    OdeSolverProblem, OdeSolverStopReason, Vector as _, VectorCommon as _,
};

use crate::Failure;

type M = NalgebraMat<f64>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    Tsit45,
    Bdf,
    Esdirk34,
    TrBdf2,
}

/// The state at `end`.
fn solve<Eqn>(problem: &OdeSolverProblem<Eqn>, method: Method, end: f64) -> Result<Vec<f64>, Failure>
where
    Eqn: OdeEquationsImplicit<M = M, V = NalgebraVec<f64>, T = f64, C = NalgebraContext>,
{
    type Lu = NalgebraLU<f64>;
    match method {
        Method::Tsit45 => run(problem.tsit45()?, end),
        Method::Bdf => run(problem.bdf::<Lu>()?, end),
        Method::Esdirk34 => run(problem.esdirk34::<Lu>()?, end),
        Method::TrBdf2 => run(problem.tr_bdf2::<Lu>()?, end),
    }
}

/// Step by step: nothing between is kept, as for the others.
fn run<'a, Eqn>(mut solver: impl OdeSolverMethod<'a, Eqn>, end: f64) -> Result<Vec<f64>, Failure>
where
    Eqn: OdeEquationsImplicit<M = M, V = NalgebraVec<f64>, T = f64, C = NalgebraContext> + 'a,
{
    solver.set_stop_time(end)?;
    while solver.step()? != OdeSolverStopReason::TstopReached {}
    Ok(solver.state().y.inner().iter().copied().collect())
}

/// A solver of one problem: method and tolerance to the state at `end`.
pub type Solver = Box<dyn FnMut(Method, f64) -> Result<Vec<f64>, Failure>>;

macro_rules! solver {
    ($states:expr, $start:expr, $parameters:expr, $scale:expr, $end:expr, $rhs:expr, $jacobian:expr) => {{
        let scale = $scale;
        let end = $end;
        let start = $start;
        let mut problem = OdeBuilder::<M>::new()
            .p($parameters)
            .rtol(1e-6)
            .atol(scale)
            .rhs_implicit($rhs, $jacobian)
            .init(move |_p, _t, y| y.copy_from_slice(&start), $states)
            .build()?;
        Ok(Box::new(move |method, tolerance| {
            problem.rtol = tolerance;
            problem
                .atol
                .inner_mut()
                .copy_from_slice(&scale.map(|scale| tolerance * scale));
            solve(&problem, method, end)
        }))
    }};
}

pub fn lotka_volterra(end: f64) -> Result<Solver, Failure> {
    solver!(
        2,
        [1.0, 1.0],
        [1.5, 1.0, 3.0, 1.0],
        [1.0, 1.0],
        end,
        |y: &[f64], p: &[f64], _t, out: &mut [f64]| {
            out[0] = p[0] * y[0] - p[1] * y[0] * y[1];
            out[1] = p[3] * y[0] * y[1] - p[2] * y[1];
        },
        |y: &[f64], p: &[f64], _t, v: &[f64], out: &mut [f64]| {
            out[0] = p[0] * v[0] - p[1] * (v[0] * y[1] + y[0] * v[1]);
            out[1] = p[3] * (v[0] * y[1] + y[0] * v[1]) - p[2] * v[1];
        }
    )
}

pub fn robertson(end: f64, scale: [f64; 3]) -> Result<Solver, Failure> {
    solver!(
        3,
        [1.0, 0.0, 0.0],
        [0.04, 3e7, 1e4],
        scale,
        end,
        |y: &[f64], p: &[f64], _t, out: &mut [f64]| {
            let (r1, r2, r3) = (p[0] * y[0], p[1] * y[1] * y[1], p[2] * y[1] * y[2]);
            out[0] = r3 - r1;
            out[1] = r1 - r2 - r3;
            out[2] = r2;
        },
        |y: &[f64], p: &[f64], _t, v: &[f64], out: &mut [f64]| {
            let r1 = p[0] * v[0];
            let r2 = 2.0 * p[1] * y[1] * v[1];
            let r3 = p[2] * (v[1] * y[2] + y[1] * v[2]);
            out[0] = r3 - r1;
            out[1] = r1 - r2 - r3;
            out[2] = r2;
        }
    )
}

pub fn van_der_pol(end: f64) -> Result<Solver, Failure> {
    solver!(
        2,
        [2.0, 0.0],
        [1000.0],
        [1.0, 1.0],
        end,
        |y: &[f64], p: &[f64], _t, out: &mut [f64]| {
            out[0] = y[1];
            out[1] = p[0] * (1.0 - y[0] * y[0]) * y[1] - y[0];
        },
        |y: &[f64], p: &[f64], _t, v: &[f64], out: &mut [f64]| {
            out[0] = v[1];
            out[1] = p[0] * ((1.0 - y[0] * y[0]) * v[1] - 2.0 * y[0] * y[1] * v[0]) - v[0];
        }
    )
}
