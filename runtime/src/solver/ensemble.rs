//! Many members of one problem on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::SolveError;
use super::options::{SolveOptions, Values};
use super::problem::Problem;
use super::run::Solution;

impl Problem {
    /// Solves every member, in the order given, on up to `threads` threads. Each gets the bits it would get alone, and
    /// one that fails keeps no other from its result.
    pub fn solve_many(
        &self,
        members: &[Values],
        options: &SolveOptions,
        threads: usize,
    ) -> Vec<Result<Solution, SolveError>> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Result<Solution, SolveError>>>> =
            members.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            let mut session = None;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (Some(member), Some(place)) = (members.get(at), results.get(at)) else {
                    return;
                };
                let solved = match session.take().map_or_else(|| self.session(), Ok) {
                    Ok(mut open) => {
                        let solved = open.solve(options, member);
                        // After a failure nothing is known about the instance.
                        if solved.is_ok() {
                            session = Some(open);
                        }
                        solved
                    }
                    Err(error) => Err(error),
                };
                if let Ok(mut place) = place.lock() {
                    *place = Some(solved);
                }
            }
        };
        let threads = threads.clamp(1, members.len().max(1));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let lost = || Err(SolveError::Module("its thread ended early".to_owned()));
        let result = |place: Mutex<Option<_>>| place.into_inner().ok().flatten().unwrap_or_else(lost);
        results.into_iter().map(result).collect()
    }
}
