//! What a device says that nobody understands: told at once, then ever more rarely while it goes on.

use std::time::Duration;

use orrery_protocol::MonoNanos;

const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// Counts what was not understood until it is told.
#[derive(Debug, Default)]
pub struct Garbage {
    untold: u64,
    last: Option<String>,
    /// When it was told last, and how long to keep still then.
    told: Option<(MonoNanos, Duration)>,
}

impl Garbage {
    /// Notes one more piece.
    pub fn hear(&mut self, what: String) {
        self.untold += 1;
        self.last = Some(what);
    }

    /// How many pieces to tell of and the last of them, if it is time.
    pub fn tell(&mut self, now: MonoNanos) -> Option<(u64, String)> {
        let pause = match self.told {
            Some((at, pause)) if now < at.plus(pause) => return None,
            // It went on: twice as long a pause. It had ended: from the start.
            Some((at, pause)) if now < at.plus(pause * 2) => (pause * 2).min(MOST),
            _ => FIRST,
        };
        let last = self.last.take()?;
        self.told = Some((now, pause));
        Some((std::mem::take(&mut self.untold), last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_garbage_is_told_of_about_once_a_minute_and_counted_whole() {
        let beat = 250_000_000;
        let mut garbage = Garbage::default();
        let (mut times, mut counted) = (Vec::new(), 0);
        for n in 0..4 * 3_600 {
            garbage.hear("?".to_owned());
            if let Some((count, _)) = garbage.tell(MonoNanos(n * beat)) {
                times.push(n / 4);
                counted += count;
            }
        }
        assert_eq!(times[..7], [0, 1, 3, 7, 15, 31, 63]);
        assert!(times.len() < 70, "{}", times.len());
        assert!(counted > 4 * 3_530, "{counted}");
        // After a quiet while the next is told at once again.
        let later = MonoNanos(4 * 3_600 * beat + 300_000_000_000);
        garbage.hear("??".to_owned());
        assert_eq!(garbage.tell(later).map(|(_, last)| last), Some("??".to_owned()));
        garbage.hear("???".to_owned());
        assert_eq!(garbage.tell(later.plus(FIRST / 2)), None);
        assert!(garbage.tell(later.plus(FIRST)).is_some());
    }
}
