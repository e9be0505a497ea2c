//! A solved plan with its tape, in as much memory as it may have.
//!
//! The tape of a long run does not fit. The module then pauses between two steps whenever it is full, and the host keeps a
//! checkpoint there (states, parameters, what events left, and how far the run is: about as much as one step on the tape).
//! Each segment between two checkpoints is computed a second time when its turn comes, with a tape, and swept. The steps,
//! the rows and the order of every sum are the same as with one long tape, so the bits are too.
//!
//! Two levels are enough: with half of the memory for a segment and a quarter for checkpoints, the steps that fit grow with
//! the square of the memory (64 MiB hold 10^10 steps of a model of two states), at the price of one more solve. More levels
//! (Griewank, Walther: Algorithm 799, Revolve, ACM Transactions on Mathematical Software 26, 2000) would trade memory that
//! no run lacks for further solves.

use orrery_lang::abi::{self, Code, Plan, Rows, Seeds, Segment, Status, Sweep};

use super::error::SolveError;
use super::run::{Session, failure};

/// The least memory that a gradient may be given.
const LEAST_BYTES: u64 = 16 << 10;
/// The most: a module has 4 GiB, and counts the bytes of its tape in signed words.
const MOST_BYTES: u64 = 2 << 30;

/// A plan that was solved, and from where each of its segments can be solved again.
pub(super) struct Recording {
    plan: Plan,
    /// The starts of all segments but the first, which starts as the plan does.
    checkpoints: Vec<Vec<u8>>,
    /// The segment that is on the tape.
    taped: usize,
}

impl Recording {
    /// The plan, which says where everything lies.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Segments, at least 1.
    pub fn segments(&self) -> usize {
        self.checkpoints.len() + 1
    }
}

impl Session<'_> {
    /// Solves a plan and keeps what sweeps over its steps need.
    pub(super) fn record(&mut self, mut plan: Plan) -> Result<(Recording, Rows), SolveError> {
        let budget = self.gradient_bytes();
        if !(LEAST_BYTES..=MOST_BYTES).contains(&budget) {
            return Err(SolveError::Value {
                what: "memory for a gradient".to_owned(),
                value: format!("{budget} bytes"),
                remedy: format!("it must be between {LEAST_BYTES} and {MOST_BYTES} bytes"),
            });
        }
        let pausing = !self.problem().meta().checkpoint.is_empty();
        plan.tape_bytes = (budget - budget / 4) as u32;
        plan.pause_bytes = if pausing { (budget / 2) as u32 } else { 0 };
        let mut recording = Recording {
            plan,
            checkpoints: Vec::new(),
            taped: 0,
        };
        self.node().arm();
        let (mut status, mut rows) = self.node().solve(&recording.plan)?;
        while status.code == Code::Paused {
            self.check_tape(&recording.plan, &status)?;
            let checkpoint = self.node().checkpoint();
            if checkpoint.is_empty() {
                let message = "it paused, and says of nothing that it goes on from there";
                return Err(SolveError::Module(message.to_owned()));
            }
            let bytes = (checkpoint.len() + size_of::<Vec<u8>>()) as u64;
            let kept = (recording.checkpoints.len() as u64 + 1).saturating_mul(bytes);
            if kept > budget / 4 {
                // Twice the memory holds four times the steps.
                return Err(SolveError::GradientMemory {
                    budget_bytes: budget,
                    needed_bytes: 2 * budget,
                });
            }
            recording.checkpoints.push(checkpoint);
            recording.taped += 1;
            (status, rows) = self.node().resume(&recording.plan, None)?;
        }
        if status.code == Code::TapeFull {
            self.check_tape(&recording.plan, &status)?;
        }
        if let Some(message) = failure(self.problem(), &status) {
            return Err(SolveError::Numerical(message));
        }
        Ok((recording, rows))
    }

    /// The rest of the module's memory is for rows and cotangents.
    fn gradient_bytes(&self) -> u64 {
        let limits = self.problem().limits;
        limits.gradient_bytes.min(u64::from(limits.memory_mib) << 19)
    }

    /// What is beyond the pause belongs to one step, with its rows and events, and must fit the quarter left for it.
    fn check_tape(&self, plan: &Plan, status: &Status) -> Result<(), SolveError> {
        if status.tape_needed <= u64::from(plan.tape_bytes) {
            return Ok(());
        }
        let needed_bytes = if plan.pause_bytes > 0 {
            4 * (status.tape_needed - u64::from(plan.pause_bytes))
        } else {
            status.tape_needed.saturating_mul(4) / 3 + 4
        };
        Err(SolveError::GradientMemory {
            budget_bytes: self.gradient_bytes(),
            needed_bytes,
        })
    }

    /// Puts a segment onto the tape.
    fn replay(&mut self, recording: &mut Recording, segment: usize) -> Result<(), SolveError> {
        if recording.taped == segment {
            return Ok(());
        }
        let plan = &recording.plan;
        let (status, _) = match segment.checked_sub(1).and_then(|at| recording.checkpoints.get(at)) {
            Some(checkpoint) => self.node().resume(plan, Some(checkpoint))?,
            None => self.node().solve(plan)?,
        };
        recording.taped = segment;
        let expected = if segment + 1 < recording.segments() {
            Code::Paused
        } else {
            Code::Ok
        };
        if status.code == expected {
            return Ok(());
        }
        Err(SolveError::Module(format!(
            "a segment of the run ended with {:?} when it was solved again and with {expected:?} before",
            status.code
        )))
    }

    /// The gradient of what weighs the rows with `seeds`: segment by segment from the last.
    pub(super) fn reverse(&mut self, recording: &mut Recording, seeds: &Seeds) -> Result<abi::Gradient, SolveError> {
        let last = recording.segments() - 1;
        self.replay(recording, last)?;
        self.node().write_seeds(&recording.plan, seeds)?;
        for segment in (0..=last).rev() {
            self.replay(recording, segment)?;
            self.sweep(Sweep::Reverse, segment < last, segment > 0)?;
        }
        Ok(self.node().read_gradient(&recording.plan))
    }

    /// The tangents of the rows along `direction`: segment by segment from the first.
    pub(super) fn forward(
        &mut self,
        recording: &mut Recording,
        direction: &abi::Gradient,
    ) -> Result<Vec<f64>, SolveError> {
        self.along(recording, direction, Sweep::Forward)?;
        Ok(self.node().read_tangents(&recording.plan))
    }

    /// The first and second tangents of the rows along `direction`: segment by segment from the first.
    pub(super) fn second(
        &mut self,
        recording: &mut Recording,
        direction: &abi::Gradient,
    ) -> Result<[Vec<f64>; 2], SolveError> {
        self.along(recording, direction, Sweep::Second)?;
        Ok(self.node().read_second_tangents(&recording.plan))
    }

    fn along(&mut self, recording: &mut Recording, direction: &abi::Gradient, sweep: Sweep) -> Result<(), SolveError> {
        self.node().write_direction(&recording.plan, direction)?;
        let last = recording.segments() - 1;
        for segment in 0..=last {
            self.replay(recording, segment)?;
            self.sweep(sweep, segment > 0, segment < last)?;
        }
        Ok(())
    }

    fn sweep(&mut self, sweep: Sweep, follows: bool, more: bool) -> Result<(), SolveError> {
        let status = self.node().sweep(sweep, Segment { follows, more })?;
        match failure(self.problem(), &status) {
            Some(message) => Err(SolveError::Numerical(message)),
            None => Ok(()),
        }
    }
}
