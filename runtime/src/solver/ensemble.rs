//! Many members of one problem, on several threads and in both lanes of a vector.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use orrery_lang::abi::{Code, Initialise, Rows};

use super::error::SolveError;
use super::options::{SolveOptions, Values};
use super::problem::Problem;
use super::run::{FIRST_EVENT_ROWS, MOST_STEPS, Session, Solution, Statistics, check_finite, count, plan_of};
use super::schedule::Schedule;
use crate::engine::{Model, PairNode};

/// From this many evaluations on that all members need together, a module for two lanes repays its compilation, which takes
/// about three times that of a module for one.
const WORTH_LANES: u64 = 10_000_000;
/// Members with more rows of events are solved one by one.
const MOST_EVENT_ROWS: u32 = FIRST_EVENT_ROWS * 16 * 16;

type Solved = Result<Solution, SolveError>;

impl Problem {
    /// Solves every member, in the order given, on up to `threads` threads, two at a time in the lanes of a vector where
    /// there is enough to do. Each gets the bits it would get alone, and one that fails keeps no other from its result.
    pub fn solve_many(&self, members: &[Values], options: &SolveOptions, threads: usize) -> Vec<Solved> {
        let Some((first, rest)) = members.split_first() else {
            return Vec::new();
        };
        // What the first costs tells what all do.
        let first = self.session().and_then(|mut session| session.solve(options, first));
        let each = first.as_ref().map_or(0, |solution| solution.statistics.evaluations);
        let lanes = if each.saturating_mul(members.len() as u64) >= WORTH_LANES {
            self.for_two_lanes()
        } else {
            None
        };
        let at_once = if lanes.is_some() { 2 } else { 1 };
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Solved>>> = rest.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            let mut worker = Worker {
                problem: self,
                options,
                lanes,
                session: None,
                pair: None,
                event_rows: FIRST_EVENT_ROWS,
            };
            loop {
                let from = next.fetch_add(at_once, Ordering::Relaxed);
                let Some(chosen) = rest.get(from..rest.len().min(from + at_once)) else {
                    return;
                };
                if chosen.is_empty() {
                    return;
                }
                for (solved, place) in worker.solve(chosen).into_iter().zip(&results[from..]) {
                    if let Ok(mut place) = place.lock() {
                        *place = Some(solved);
                    }
                }
            }
        };
        let threads = threads.clamp(1, rest.len().div_ceil(at_once).max(1));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let lost = || Err(SolveError::Module("its thread ended early".to_owned()));
        let result = |place: Mutex<Option<_>>| place.into_inner().ok().flatten().unwrap_or_else(lost);
        std::iter::once(first).chain(results.into_iter().map(result)).collect()
    }
}

/// One thread's instances.
struct Worker<'a> {
    problem: &'a Problem,
    options: &'a SolveOptions,
    lanes: Option<&'a Model>,
    session: Option<Session<'a>>,
    pair: Option<PairNode>,
    /// Room for rows of events that was enough so far.
    event_rows: u32,
}

impl Worker<'_> {
    fn solve(&mut self, members: &[Values]) -> Vec<Solved> {
        if let [first, second] = members
            && let Some(both) = self.together([first, second])
        {
            return both.map(Ok).into();
        }
        // Whatever failed together says alone what it was.
        members.iter().map(|member| self.alone(member)).collect()
    }

    fn alone(&mut self, member: &Values) -> Solved {
        let mut open = match self.session.take() {
            Some(open) => open,
            None => self.problem.session()?,
        };
        let solved = open.solve(self.options, member);
        // After a failure nothing is known about the instance.
        if solved.is_ok() {
            self.session = Some(open);
        }
        solved
    }

    /// Two members at once; `None` where either does not end well.
    fn together(&mut self, members: [&Values; 2]) -> Option<[Solution; 2]> {
        let limits = self.problem.limits.of_node();
        loop {
            let mut node = match self.pair.take() {
                Some(node) => node,
                None => self.lanes?.pair(limits).ok()?,
            };
            match attempt(self.problem, self.options, &mut node, members, self.event_rows)? {
                Some(both) => {
                    self.pair = Some(node);
                    return Some(both);
                }
                None if self.event_rows < MOST_EVENT_ROWS => {
                    self.event_rows *= 16;
                    self.pair = Some(node);
                }
                None => return None,
            }
        }
    }
}

/// `Some(None)`: there were more events than rows for them.
fn attempt(
    problem: &Problem,
    options: &SolveOptions,
    node: &mut PairNode,
    members: [&Values; 2],
    event_rows: u32,
) -> Option<Option<[Solution; 2]>> {
    let meta = problem.meta();
    let row_bytes = orrery_lang::abi::row_bytes(meta);
    let schedule = Schedule::new(options.from, options.until, &options.output, row_bytes).ok()?;
    let values = members.map(|member| problem.base.with(member));
    let mut solutions = [(); 2].map(|()| Solution {
        names: problem.names(),
        rows: Rows {
            times: Vec::new(),
            values: Vec::new(),
            columns: meta.columns.len(),
        },
        statistics: Statistics::default(),
    });
    node.arm();
    for (number, piece) in schedule.pieces.iter().enumerate() {
        let used = solutions
            .iter()
            .map(|solution| solution.statistics.steps + solution.statistics.rejected);
        let left = u64::from(problem.limits.max_steps).saturating_sub(used.max().unwrap_or(0));
        let mut plans = Vec::new();
        for values in &values {
            let mut plan = plan_of(problem, &schedule, piece, options, values).ok()?;
            plan.max_steps = u32::try_from(left).unwrap_or(MOST_STEPS).min(MOST_STEPS);
            plan.event_rows = event_rows;
            if number == 0 {
                plan.first_row = true;
                plan.initialise = Some(Initialise {
                    parameters: values.parameters.clone(),
                    states: values.states.clone(),
                });
            }
            plans.push(plan);
        }
        let both = node.solve(&plans.try_into().ok()?).ok()?;
        if both.iter().any(|(status, _)| status.code == Code::RowsFull) {
            return Some(None);
        }
        for (solution, (status, rows)) in solutions.iter_mut().zip(both) {
            if status.code != Code::Ok {
                return None;
            }
            count(&mut solution.statistics, &status);
            check_finite(problem, &rows).ok()?;
            let rows = piece.select(schedule.base, rows);
            solution.rows.times.extend_from_slice(&rows.times);
            solution.rows.values.extend_from_slice(&rows.values);
        }
    }
    Some(Some(solutions))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::EngineKind;
    use crate::engine::Engine;
    use crate::solver::{Method, Output, ProblemOptions};

    #[test]
    fn lanes_give_the_bits_of_members_alone() {
        let text = "model B parameter Real e = 0.8; Real h(start=1, fixed=true); Real v(start=0, fixed=true);\
            equation der(h) = v; der(v) = -9.81; when h <= 0 then reinit(v, -e*pre(v)); end when; end B;";
        let engine = Engine::new(EngineKind::Cranelift).unwrap();
        let problem = Problem::compile(&engine, text, "b.mo", &ProblemOptions::default()).unwrap();
        let member = |at: usize| {
            let named = [
                ("e".to_owned(), 0.5 + 0.01 * at as f64),
                // One of them has no numbers left.
                ("start(v)".to_owned(), if at == 5 { 1e308 } else { 0.1 * at as f64 }),
            ];
            problem.values(&named).unwrap()
        };
        let members: Vec<Values> = (0..12).map(member).collect();
        let options = SolveOptions {
            method: Method::Rk4 { step: 5e-6 },
            output: Output::Every(0.1),
            ..SolveOptions::until(1.5)
        };
        let together = problem.solve_many(&members, &options, 2);
        assert!(
            problem.lanes.get().is_some_and(Option::is_some),
            "there was enough to do"
        );
        for (at, (member, found)) in members.iter().zip(&together).enumerate() {
            let alone = problem.session().unwrap().solve(&options, member);
            assert_eq!(alone.is_err(), at == 5);
            match (&alone, found) {
                (Ok(alone), Ok(found)) => assert_eq!(alone, found, "member {at}"),
                (Err(alone), Err(found)) => assert_eq!(alone, found, "member {at}"),
                _ => panic!("member {at} differs"),
            }
        }
    }
}
