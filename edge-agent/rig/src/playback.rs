//! Playback: a recording that comes out of the board again, through the same serial protocol, each row exactly once and in
//! the recording's own digits.
//!
//! **How a polling client sees every row once.** The board behaves like an instrument that answers when its conversion is
//! complete. Each row has a due time: the client's first read starts the recording, and row *n* is due `time_s[n] − time_s[0]`
//! later on the rig's clock. A row is *held* until one of its values is asked for a second time; that question asks for the
//! next row, and it is answered when that row is due. So a client that scans as often as it likes gets one row per scan, paced
//! by the recording; one that reads `T1`, `T2`, `R1`, `R2` in turn gets the four values of one row; and a client that comes late
//! gets the rows it is behind with, at once, until it has caught up. Nothing is skipped and nothing comes twice.
//!
//! A client must therefore wait for an answer longer than the rows lie apart. The edge agent polls a playing board at the
//! recording's rate with a time-out of several rows. After the last row the board stays silent when read, as one whose
//! supply was cut: [`Progress::ended`] tells the host, and `VER` is answered with [`crate::firmware::ENDED`].
//!
//! The heaters are what the recording says: `Q1 x` is answered with the recording's power, and changes nothing.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orrery_protocol::MonoNanos;

use crate::firmware::Quantities;

/// The columns a recording has, in this order.
pub const COLUMNS: [&str; 5] = ["time_s", "q1_percent", "q2_percent", "t1_degc", "t2_degc"];

/// What they can be: a heater is set to 0 to 100 %, and the sensor with its converter shows −50 to 280 °C.
const RANGES: [RangeInclusive<f64>; 5] = [
    f64::MIN..=f64::MAX,
    0.0..=100.0,
    0.0..=100.0,
    -50.0..=280.0,
    -50.0..=280.0,
];

/// A recording that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened.
    #[error("cannot read the recording {}: {source}; give the path of a CSV file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// The first line is not the expected header.
    #[error("{}:1: the columns are `{found}`, they must be `{}`", path.display(), COLUMNS.join(","))]
    Header {
        /// The file.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
    /// A line is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// There is a header and nothing else.
    #[error("{} holds no rows: there is nothing to play", .0.display())]
    Empty(PathBuf),
}

/// One row: its time since the first, and its values as written.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    after: Duration,
    /// T1, T2, Q1, Q2: the order of `SCAN`.
    texts: [String; 4],
    powers: [f64; 2],
}

/// A recording, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    rows: Vec<Row>,
}

impl Recording {
    /// Reads a CSV file with the columns [`COLUMNS`].
    ///
    /// # Errors
    /// [`RecordingError`] names the file, the line and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let unreadable = |source| RecordingError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_path(path)
            .map_err(unreadable)?;
        let header = reader.headers().map_err(unreadable)?;
        if header.iter().ne(COLUMNS) {
            let found = header.iter().collect::<Vec<_>>().join(",");
            return Err(RecordingError::Header {
                path: path.to_owned(),
                found,
            });
        }
        let mut rows = Vec::new();
        let mut previous = f64::NEG_INFINITY;
        let mut first = 0.0;
        for (index, record) in reader.records().enumerate() {
            let line = |position: Option<&csv::Position>| position.map_or(index as u64 + 2, csv::Position::line);
            let wrong = |line, problem| RecordingError::Line {
                path: path.to_owned(),
                line,
                problem,
            };
            let record = record.map_err(|error| wrong(line(error.position()), error.to_string()))?;
            let line = line(record.position());
            let mut numbers = [0.0; 5];
            for (((number, text), column), range) in numbers.iter_mut().zip(&record).zip(COLUMNS).zip(RANGES) {
                *number =
                    parse(text).ok_or_else(|| wrong(line, format!("`{text}` in column {column} is not a number")))?;
                if !range.contains(number) {
                    let (low, high) = (range.start(), range.end());
                    let problem = format!("{column} is {number}: no board says that, it lies between {low} and {high}");
                    return Err(wrong(line, problem));
                }
            }
            let [time, q1, q2, ..] = numbers;
            if time <= previous {
                return Err(wrong(
                    line,
                    format!("time_s is {time} after {previous}: times must rise"),
                ));
            }
            previous = time;
            if rows.is_empty() {
                first = time;
            }
            let after = Duration::try_from_secs_f64(time - first)
                .map_err(|_| wrong(line, format!("time_s is {time}: too long after the first row")))?;
            let text = |column: usize| record[column].to_owned();
            rows.push(Row {
                after,
                texts: [text(3), text(4), text(1), text(2)],
                powers: [q1, q2],
            });
        }
        if rows.is_empty() {
            return Err(RecordingError::Empty(path.to_owned()));
        }
        Ok(Self { rows })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Always false: a recording without rows is refused when read.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How often its rows come, Hz: from the mean distance.
    pub fn rate_hz(&self) -> f64 {
        let span = self.rows.last().map_or(0.0, |row| row.after.as_secs_f64());
        if span > 0.0 {
            (self.rows.len() - 1) as f64 / span
        } else {
            1.0
        }
    }
}

fn parse(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// How far a playback has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows given to the client.
    pub rows_given: usize,
    /// Rows in the recording.
    pub rows: usize,
    /// The client asked for a row after the last: the board is silent now.
    pub ended: bool,
}

/// What a playing board does with a question.
#[derive(Debug, PartialEq)]
pub enum Answer<'a> {
    /// These values, each as written in the recording.
    Values(Vec<&'a str>),
    /// Ask again at this time: the row is not due yet.
    NotBefore(MonoNanos),
    /// There is no further row.
    Silence,
}

/// Gives the rows of a recording.
#[derive(Debug)]
pub struct Player {
    recording: Recording,
    started: Option<MonoNanos>,
    current: Option<usize>,
    given: Option<Quantities>,
    ended: bool,
}

impl Player {
    /// A player at the start of `recording`; the first question starts it.
    pub fn new(recording: Recording) -> Self {
        Self {
            recording,
            started: None,
            current: None,
            given: None,
            ended: false,
        }
    }

    /// Answers a question for `asked` at `now`.
    pub fn ask(&mut self, asked: Quantities, now: MonoNanos) -> Answer<'_> {
        let held = self.current.zip(self.given).filter(|(_, given)| !given.overlaps(asked));
        let (row, given) = match held {
            Some((row, given)) => (row, given.and(asked)),
            None => (self.current.map_or(0, |row| row + 1), asked),
        };
        let Some(next) = self.recording.rows.get(row) else {
            self.ended = true;
            return Answer::Silence;
        };
        let due = self.started.get_or_insert(now).plus(next.after);
        if now < due {
            return Answer::NotBefore(due);
        }
        self.current = Some(row);
        self.given = Some(given);
        Answer::Values(
            asked
                .positions()
                .map(|position| next.texts[position].as_str())
                .collect(),
        )
    }

    /// The power of heater `index` in the current row, as written and as a number.
    pub fn power(&self, index: usize) -> (&str, f64) {
        let row = &self.recording.rows[self.current.unwrap_or(0)];
        (&row.texts[2 + index], row.powers[index])
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress {
            rows_given: self.current.map_or(0, |row| row + 1),
            rows: self.recording.rows.len(),
            ended: self.ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::firmware::Heater;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn recording(rows: usize) -> Recording {
        let mut text = COLUMNS.join(",");
        for row in 0..rows {
            text += &format!("\n{row},{row}.1000,{row}.2000,{row}.3000,{row}.4000");
        }
        Recording::read(written(&text).path()).unwrap()
    }

    #[test]
    fn a_wrong_recording_is_refused_with_its_line() {
        let head = COLUMNS.join(",");
        for (text, message) in [
            ("a,b\n1,2\n".to_owned(), ":1: the columns are `a,b`"),
            (
                format!("{head}\n0,1,2,3,4\n1,1,2,x,4\n"),
                ":3: `x` in column t1_degc is not a number",
            ),
            (
                format!("{head}\n0,1,2,3,4\n0,1,2,3,4\n"),
                ":3: time_s is 0 after 0: times must rise",
            ),
            (
                format!("{head}\n0,1,9999,3,4\n"),
                ":2: q2_percent is 9999: no board says that, it lies between 0 and 100",
            ),
            (format!("{head}\n0,1,2,3,-273\n"), ":2: t2_degc is -273"),
            (format!("{head}\n0,1,2,3,4\n1,1,2\n"), ":3: "),
            (format!("{head}\n0,1,2,3,NaN\n"), ":2: `NaN` in column t2_degc"),
            (format!("{head}\n"), "holds no rows"),
        ] {
            let error = Recording::read(written(&text).path()).unwrap_err().to_string();
            assert!(error.contains(message), "{error} should say {message}");
        }
        let error = Recording::read(Path::new("/nowhere/x.csv")).unwrap_err().to_string();
        assert!(error.contains("cannot read the recording /nowhere/x.csv"), "{error}");
    }

    #[test]
    fn a_row_is_held_until_a_value_is_asked_for_again() {
        let mut player = Player::new(recording(2));
        let (t1, q2) = (Quantities::temperature(Heater::One), Quantities::power(Heater::Two));
        assert_eq!(player.ask(t1, MonoNanos(10)), Answer::Values(vec!["0.3000"]));
        assert_eq!(player.ask(q2, MonoNanos(5_000_000_000)), Answer::Values(vec!["0.2000"]));
        assert_eq!(
            player.ask(t1, MonoNanos(999_999_999)),
            Answer::NotBefore(MonoNanos(1_000_000_010))
        );
        assert_eq!(player.ask(t1, MonoNanos(1_000_000_010)), Answer::Values(vec!["1.3000"]));
        assert_eq!(player.power(0), ("1.1000", 1.1));
        assert!(!player.progress().ended);
        assert_eq!(player.ask(Quantities::ALL, MonoNanos(9_000_000_000)), Answer::Silence);
        assert_eq!(
            player.progress(),
            Progress {
                rows_given: 2,
                rows: 2,
                ended: true
            }
        );
    }

    proptest! {
        /// Whatever the client's rhythm, it sees every row once, in order, and never before its time.
        #[test]
        fn every_row_comes_once(rows in 1usize..40, pauses in proptest::collection::vec(0i64..3_000_000_000, 1..200)) {
            let recording = recording(rows);
            let mut player = Player::new(recording.clone());
            let (mut now, mut seen) = (MonoNanos(77), Vec::new());
            for pause in pauses.iter().cycle() {
                now = MonoNanos(now.0 + pause);
                let first = MonoNanos(77 + pauses[0]);
                match player.ask(Quantities::ALL, now) {
                    Answer::Values(values) => {
                        prop_assert!(now.nanos_since(first) >= seen.len() as i64 * 1_000_000_000);
                        seen.push(values.into_iter().map(str::to_owned).collect::<Vec<_>>());
                    }
                    Answer::NotBefore(due) => {
                        prop_assert!(due > now);
                        now = due;
                    }
                    Answer::Silence => break,
                }
            }
            let all: Vec<Vec<String>> = recording.rows.iter().map(|row| row.texts.to_vec()).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
