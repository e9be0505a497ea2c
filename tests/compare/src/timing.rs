//! Interleaved repetitions in processor time: neither who else runs nor when decides who is faster.

use cpu_time::ThreadTime;

use crate::Failure;

/// Rounds of each comparison; the median of them is reported.
const ROUNDS: usize = 31;
/// A round of one method takes at least this long, so that the clock's resolution does not matter.
const LEAST_S: f64 = 2e-3;

/// Runs a method this many times; the seconds of one run.
pub type Batch<'a> = Box<dyn FnMut(usize) -> Result<f64, Failure> + 'a>;

/// A method that runs in this process.
pub fn here<'a, T>(mut run: impl FnMut() -> Result<T, Failure> + 'a) -> Batch<'a> {
    Box::new(move |times| {
        let start = ThreadTime::now();
        for _ in 0..times {
            std::hint::black_box(run()?);
        }
        Ok(start.elapsed().as_secs_f64() / times as f64)
    })
}

/// The median seconds of one run of each method.
pub fn medians(batches: &mut [Batch<'_>]) -> Result<Vec<f64>, Failure> {
    let mut sizes = Vec::new();
    for batch in batches.iter_mut() {
        batch(1)?;
        sizes.push((LEAST_S / batch(1)?).ceil().max(1.0) as usize);
    }
    let mut seconds = vec![Vec::new(); batches.len()];
    for _ in 0..ROUNDS {
        for (index, batch) in batches.iter_mut().enumerate() {
            seconds[index].push(batch(sizes[index])?);
        }
    }
    Ok(seconds.into_iter().map(median).collect())
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
