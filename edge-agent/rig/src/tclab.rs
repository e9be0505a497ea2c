//! The Temperature Control Lab board: its firmware on the serial port, over the simulated bench or over a recording.

use std::io::{self, Write};
use std::sync::Arc;

use orrery_protocol::{Clock, MonoNanos};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bench::{DEFAULT_PWM_LIMITS, PWM_FULL_SCALE, SharedBench};
use crate::error::RigError;
use crate::firmware::{Action, ENDED, Heater, LineBuffer, Quantities, VERSION};
use crate::playback::{Answer, Player, Progress};
use crate::pty::SerialPort;

/// What answers behind the serial port.
pub enum Board {
    /// The simulated board.
    Simulated(Simulated),
    /// A recording of a real one.
    Playing(Playing),
}

/// What to do with a line from the client.
#[derive(Debug, PartialEq)]
pub enum Response {
    /// These bytes, at once; none is no answer.
    Bytes(Vec<u8>),
    /// Ask the board again at this time.
    NotBefore(MonoNanos),
}

impl Board {
    /// What the board does with `action` at `now`.
    pub fn respond(&mut self, action: &Action, now: MonoNanos) -> Response {
        match self {
            Self::Simulated(board) => Response::Bytes(board.respond(action, now)),
            Self::Playing(board) => board.respond(action, now),
        }
    }
}

/// Runs the board until `shutdown`.
///
/// # Errors
/// [`RigError::Serial`] when the pseudo-terminal fails.
pub async fn run(
    mut board: Board,
    port: SerialPort,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), RigError> {
    tokio::select! {
        failed = serve(&mut board, &port, clock.as_ref()) => failed.map_err(RigError::Serial),
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn serve(board: &mut Board, port: &SerialPort, clock: &dyn Clock) -> io::Result<()> {
    let mut lines = LineBuffer::default();
    let mut buffer = [0; 256];
    loop {
        let read = port.read(&mut buffer).await?;
        for &byte in &buffer[..read] {
            let Some(line) = lines.push(byte) else {
                continue;
            };
            let answer = respond_when_due(board, &Action::of(&line), clock).await;
            port.write(&answer).await?;
        }
    }
}

async fn respond_when_due(board: &mut Board, action: &Action, clock: &dyn Clock) -> Vec<u8> {
    loop {
        let now = clock.monotonic();
        match board.respond(action, now) {
            Response::Bytes(bytes) => return bytes,
            Response::NotBefore(due) => tokio::time::sleep(clock.real(due.since(now))).await,
        }
    }
}

/// The firmware over the simulated bench.
pub struct Simulated {
    bench: SharedBench,
    powers: [f32; 2],
    limits: [f32; 2],
}

impl Simulated {
    /// A board on `bench` whose heaters already run at `powers` percent, as in the middle of an experiment.
    pub fn new(bench: SharedBench, powers: [f64; 2], now: MonoNanos) -> Self {
        let mut board = Self {
            bench,
            powers: [0.0; 2],
            limits: DEFAULT_PWM_LIMITS,
        };
        for heater in [Heater::One, Heater::Two] {
            board.set(heater, powers[heater.index()].clamp(0.0, 100.0) as f32, now);
        }
        board
    }

    fn respond(&mut self, action: &Action, now: MonoNanos) -> Vec<u8> {
        match action {
            Action::Nothing => Vec::new(),
            Action::Restart => self.off(b"Start", now),
            Action::Stop => self.off(b"Stop", now),
            Action::Unknown(word) => self.off(word, now),
            Action::Version => line(VERSION),
            Action::Led(brightness) => line(format_args!("{brightness:.2}")),
            Action::Limit(heater, limit) => {
                // As in the firmware: it takes effect with the next power.
                self.limits[heater.index()] = *limit;
                line(format_args!("{limit:.2}"))
            }
            Action::Set(heater, percent) => {
                self.set(*heater, *percent, now);
                line(format_args!("{percent:.3}"))
            }
            Action::Read(quantities) => self.read(*quantities, now),
        }
    }

    fn read(&self, quantities: Quantities, now: MonoNanos) -> Vec<u8> {
        let bench = self.bench.at(now);
        let values = [
            bench.board_celsius(0),
            bench.board_celsius(1),
            self.powers[0],
            self.powers[1],
        ];
        quantities
            .positions()
            .flat_map(|position| line(format_args!("{:.3}", values[position])))
            .collect()
    }

    fn set(&mut self, heater: Heater, percent: f32, now: MonoNanos) {
        let index = heater.index();
        self.powers[index] = percent;
        let pwm = (percent * self.limits[index] / 100.0).clamp(0.0, f32::from(PWM_FULL_SCALE)) as u8;
        self.bench.at(now).set_pwm(index, pwm);
    }

    fn off(&mut self, answer: &[u8], now: MonoNanos) -> Vec<u8> {
        self.set(Heater::One, 0.0, now);
        self.set(Heater::Two, 0.0, now);
        [answer, b"\r\n"].concat()
    }
}

/// The firmware over a recording. The bench follows the recording's heater powers, so that the other devices agree with it.
pub struct Playing {
    player: Player,
    bench: SharedBench,
    progress: watch::Sender<Progress>,
}

impl Playing {
    /// A board that plays `player`; tells how far it is through `progress`.
    pub fn new(player: Player, bench: SharedBench) -> (Self, watch::Receiver<Progress>) {
        let (progress, watched) = watch::channel(player.progress());
        (
            Self {
                player,
                bench,
                progress,
            },
            watched,
        )
    }

    fn respond(&mut self, action: &Action, now: MonoNanos) -> Response {
        let bytes = match action {
            Action::Nothing => Vec::new(),
            Action::Restart => line("Start"),
            Action::Stop => line("Stop"),
            Action::Unknown(word) => [word.as_slice(), b"\r\n"].concat(),
            // So that whoever asks a silent board why it is silent is told.
            Action::Version if self.player.progress().ended => line(ENDED),
            Action::Version => line(VERSION),
            Action::Led(value) | Action::Limit(_, value) => line(format_args!("{value:.2}")),
            Action::Set(heater, _) => line(self.player.power(heater.index()).0),
            Action::Read(quantities) => return self.read(*quantities, now),
        };
        Response::Bytes(bytes)
    }

    fn read(&mut self, quantities: Quantities, now: MonoNanos) -> Response {
        let bytes = match self.player.ask(quantities, now) {
            Answer::Values(values) => values.into_iter().flat_map(line).collect(),
            Answer::NotBefore(due) => return Response::NotBefore(due),
            Answer::Silence => Vec::new(),
        };
        let progress = self.player.progress();
        let changed = |told: &mut Progress| std::mem::replace(told, progress) != progress;
        if self.progress.send_if_modified(changed) {
            self.follow(now);
            if progress.ended {
                tracing::info!(rows = progress.rows, "the recording has ended: the board is silent now");
            }
        }
        Response::Bytes(bytes)
    }

    fn follow(&self, now: MonoNanos) {
        let mut bench = self.bench.at(now);
        for (index, limit) in DEFAULT_PWM_LIMITS.into_iter().enumerate() {
            let (_, percent) = self.player.power(index);
            let pwm = percent * f64::from(limit) / 100.0;
            bench.set_pwm(index, pwm.clamp(0.0, f64::from(PWM_FULL_SCALE)) as u8);
        }
    }
}

fn line(text: impl std::fmt::Display) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    // Writing to a vector cannot fail.
    let _ = write!(bytes, "{text}\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    const START: MonoNanos = MonoNanos(0);

    fn board() -> Board {
        Board::Simulated(Simulated::new(SharedBench::new(Bench::new(1, START)), [0.0; 2], START))
    }

    fn ask(board: &mut Board, text: &str, seconds: i64) -> String {
        match board.respond(&Action::of(text.as_bytes()), MonoNanos(seconds * 1_000_000_000)) {
            Response::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            Response::NotBefore(due) => panic!("due at {due:?}"),
        }
    }

    #[test]
    fn the_board_answers_as_the_firmware_does() {
        let mut board = board();
        assert_eq!(ask(&mut board, "VER", 0), format!("{VERSION}\r\n"));
        assert_eq!(ask(&mut board, "Q1 45.5", 0), "45.500\r\n");
        assert_eq!(ask(&mut board, "Q2 400", 0), "100.000\r\n");
        assert_eq!(ask(&mut board, "R1", 0), "45.500\r\n");
        assert_eq!(ask(&mut board, "P1 300", 0), "255.00\r\n");
        assert_eq!(ask(&mut board, "LED 7", 0), "7.00\r\n");
        assert_eq!(ask(&mut board, "", 0), "");
        let scan = ask(&mut board, "SCAN", 1);
        let values: Vec<f64> = scan.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(values[2..], [45.5, 100.0]);
        assert!(
            (15.0..35.0).contains(&values[0]) && (15.0..35.0).contains(&values[1]),
            "{scan}"
        );
    }

    #[test]
    fn garbage_and_stop_turn_the_heaters_off() {
        for (command, answer) in [("X", "Stop\r\n"), ("A", "Start\r\n"), ("gArbage 12", "GARBAGE\r\n")] {
            let mut board = board();
            ask(&mut board, "Q1 60", 0);
            ask(&mut board, "Q2 70", 0);
            assert_eq!(ask(&mut board, command, 1), answer);
            assert_eq!(
                ask(&mut board, "R1", 1) + &ask(&mut board, "R2", 1),
                "0.000\r\n0.000\r\n"
            );
        }
    }

    #[test]
    fn the_same_seed_and_commands_give_the_same_bytes() {
        let run = || {
            let mut board = board();
            let mut answers = ask(&mut board, "Q1 50", 0);
            for second in 1..120 {
                answers += &ask(&mut board, "SCAN", second);
            }
            answers
        };
        assert_eq!(run(), run());
    }
}
