//! The board's serial protocol, as its published firmware has it (TCLab-sketch: the version that averages ten conversions and
//! answers with three decimals). Pure: bytes in, actions out.
//!
//! A command is a word, optionally a space and a number, ended by `\r` or `\n`; case does not matter; each is answered by one
//! line ended with `\r\n`, `SCAN` by four.
//!
//! | command | answer | |
//! |---|---|---|
//! | `A` | `Start` | heaters off |
//! | `LED x` | x in 0..100, two decimals | brightness for 10 s |
//! | `P1 x`, `P2 x` | x in 0..255, two decimals | limit of the heater's pulse width |
//! | `Q1 x`, `Q2 x` | x in 0..100, three decimals | heater power, % |
//! | `R1`, `R2` | heater power, three decimals | |
//! | `T1`, `T2` | temperature, °C, three decimals | |
//! | `SCAN` | T1, T2, Q1, Q2 | |
//! | `VER` | version and board | |
//! | `X` | `Stop` | heaters off |
//! | anything else | the word in upper case | heaters off |
//!
//! As on the board: a number that cannot be read is 0, an empty line is nothing, and the 65th byte of a line ends it and is
//! lost.

/// What `VER` answers.
pub const VERSION: &str = "TCLab Firmware 2.0.1 Arduino Leonardo/Micro";

/// What a board that plays a recording answers to `VER` after the last row; no real board says it.
pub const ENDED: &str = "TCLab recording ended";

const BUFFER_BYTES: usize = 64;

/// One of the two heaters, with its thermistor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heater {
    /// Heater and sensor 1.
    One,
    /// Heater and sensor 2.
    Two,
}

impl Heater {
    /// Position in pairs.
    pub fn index(self) -> usize {
        match self {
            Self::One => 0,
            Self::Two => 1,
        }
    }
}

/// Quantities that a command reads, in the order of `SCAN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantities(u8);

impl Quantities {
    /// T1, T2, Q1, Q2.
    pub const ALL: Self = Self(0b1111);

    /// The temperature at `heater`.
    pub fn temperature(heater: Heater) -> Self {
        Self(1 << heater.index())
    }

    /// The power of `heater`.
    pub fn power(heater: Heater) -> Self {
        Self(1 << (2 + heater.index()))
    }

    /// Positions in the order T1, T2, Q1, Q2.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..4).filter(move |position| self.0 & (1 << position) != 0)
    }

    /// Whether any quantity is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The quantities of either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the firmware does with a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `A`: heaters off, `Start`.
    Restart,
    /// `LED`: brightness in percent, already clipped.
    Led(f32),
    /// `P1`, `P2`: pulse-width limit, already clipped.
    Limit(Heater, f32),
    /// `Q1`, `Q2`: heater power, already clipped.
    Set(Heater, f32),
    /// `R1`, `R2`, `T1`, `T2`, `SCAN`.
    Read(Quantities),
    /// `VER`.
    Version,
    /// `X`: heaters off, `Stop`.
    Stop,
    /// Not a command: heaters off, echoed.
    Unknown(Vec<u8>),
    /// An empty line: nothing at all.
    Nothing,
}

impl Action {
    /// What the firmware does with `line`.
    pub fn of(line: &[u8]) -> Self {
        // The buffer is a C string.
        let text = line.split(|&byte| byte == 0).next().unwrap_or_default();
        let (word, data) = match text.iter().position(|&byte| byte == b' ') {
            Some(space) => (&text[..space], &text[space + 1..]),
            None => (text, text),
        };
        let word = word.trim_ascii().to_ascii_uppercase();
        let value = to_float(data.trim_ascii());
        match word.as_slice() {
            b"" => Self::Nothing,
            b"A" => Self::Restart,
            b"LED" => Self::Led(value.clamp(0.0, 100.0)),
            b"P1" => Self::Limit(Heater::One, value.clamp(0.0, 255.0)),
            b"P2" => Self::Limit(Heater::Two, value.clamp(0.0, 255.0)),
            b"Q1" => Self::Set(Heater::One, value.clamp(0.0, 100.0)),
            b"Q2" => Self::Set(Heater::Two, value.clamp(0.0, 100.0)),
            b"R1" => Self::Read(Quantities::power(Heater::One)),
            b"R2" => Self::Read(Quantities::power(Heater::Two)),
            b"T1" => Self::Read(Quantities::temperature(Heater::One)),
            b"T2" => Self::Read(Quantities::temperature(Heater::Two)),
            b"SCAN" => Self::Read(Quantities::ALL),
            b"VER" => Self::Version,
            b"X" => Self::Stop,
            _ => Self::Unknown(word),
        }
    }
}

/// Gathers bytes into lines.
#[derive(Debug, Default)]
pub struct LineBuffer(Vec<u8>);

impl LineBuffer {
    /// Takes a byte; answers with a line when this byte ends one.
    pub fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte != b'\r' && byte != b'\n' && self.0.len() < BUFFER_BYTES {
            self.0.push(byte);
            return None;
        }
        Some(std::mem::take(&mut self.0))
    }
}

/// Arduino's `String::toFloat`: the longest number at the front, or 0. It knows neither `inf` nor `nan`.
fn to_float(data: &[u8]) -> f32 {
    let number: String = data
        .iter()
        .map(|&byte| char::from(byte))
        .take_while(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'))
        .collect();
    (1..=number.len())
        .rev()
        .find_map(|end| number[..end].parse::<f32>().ok())
        .filter(|value| value.is_finite())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_mean_what_the_firmware_says() {
        assert_eq!(Action::of(b"q1 45.5"), Action::Set(Heater::One, 45.5));
        assert_eq!(Action::of(b"Q2  1e1 "), Action::Set(Heater::Two, 10.0));
        assert_eq!(Action::of(b"Q2 130"), Action::Set(Heater::Two, 100.0));
        assert_eq!(Action::of(b"Q2 -3"), Action::Set(Heater::Two, 0.0));
        assert_eq!(Action::of(b"Q1 hot"), Action::Set(Heater::One, 0.0));
        assert_eq!(Action::of(b"Q1"), Action::Set(Heater::One, 0.0));
        assert_eq!(Action::of(b"Q1 inf"), Action::Set(Heater::One, 0.0));
        assert_eq!(Action::of(b"P1 300"), Action::Limit(Heater::One, 255.0));
        assert_eq!(Action::of(b"scan"), Action::Read(Quantities::ALL));
        assert_eq!(Action::of(b"VER"), Action::Version);
        assert_eq!(Action::of(b"X"), Action::Stop);
        assert_eq!(Action::of(b"A"), Action::Restart);
        assert_eq!(Action::of(b"  "), Action::Nothing);
        assert_eq!(Action::of(b"hello there"), Action::Unknown(b"HELLO".to_vec()));
    }

    #[test]
    fn lines_end_at_either_ending_and_at_64_bytes() {
        let mut buffer = LineBuffer::default();
        let lines: Vec<Vec<u8>> = b"T1\r\nT2\n".iter().filter_map(|&byte| buffer.push(byte)).collect();
        assert_eq!(lines, [b"T1".to_vec(), b"".to_vec(), b"T2".to_vec()]);
        let lines: Vec<Vec<u8>> = [b'z'; 66].iter().filter_map(|&byte| buffer.push(byte)).collect();
        assert_eq!(lines, [vec![b'z'; 64]]);
        assert_eq!(buffer.push(b'\n'), Some(b"z".to_vec()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_set_points_stay_in_range(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = LineBuffer::default();
            for byte in bytes {
                let Some(line) = buffer.push(byte) else { continue };
                prop_assert!(line.len() <= BUFFER_BYTES);
                match Action::of(&line) {
                    Action::Set(_, value) | Action::Led(value) => prop_assert!((0.0..=100.0).contains(&value)),
                    Action::Limit(_, value) => prop_assert!((0.0..=255.0).contains(&value)),
                    _ => {}
                }
            }
        }
    }
}
