//! Identifiers that cannot be wrong once they exist.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::TaiNanos;

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct IdError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

const PART_RULE: &str = "use 1 to 128 of the characters A-Z a-z 0-9 . _ -, starting with a letter or digit";

fn is_part(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// [`IdError`] names the text and the rule it breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { text: text.chars().take(160).collect(), what: $what, rule: $rule })
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

text_id!(
    /// A device: `tclab-01`.
    DeviceId,
    "device id",
    PART_RULE,
    is_part
);

text_id!(
    /// A stream of a device: `tclab-01/board`.
    StreamId,
    "stream id",
    "write <device>/<name>, both of the characters A-Z a-z 0-9 . _ -",
    |text| text.split_once('/').is_some_and(|(device, name)| is_part(device) && is_part(name))
);

text_id!(
    /// One continuous clock: a host boot (`host:…`) or a sensor session (`chamber-ctl:…`). Not a boot of the agent.
    ClockId,
    "clock id",
    "write <owner>:<session>, both of the characters A-Z a-z 0-9 . _ -",
    |text| text.split_once(':').is_some_and(|(owner, session)| is_part(owner) && is_part(session))
);

impl StreamId {
    /// The stream `name` of `device`.
    ///
    /// # Errors
    /// [`IdError`] when `name` has characters a stream name may not have.
    pub fn of(device: &DeviceId, name: &str) -> Result<Self, IdError> {
        Self::new(format!("{device}/{name}"))
    }

    /// The device part.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.split().0.into())
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        self.0
            .split_once('/')
            .expect("a StreamId holds exactly one checked slash")
    }
}

impl ClockId {
    /// A host's boot-time clock; characters that an id may not have become `-`.
    pub fn host(boot: &str) -> Self {
        Self::session("host", boot)
    }

    /// A device's own clock in one session; characters that an id may not have become `-`.
    pub fn session(owner: &str, session: &str) -> Self {
        let clean = |text: &str| -> String {
            let text: String = text
                .chars()
                .take(127)
                .map(|c| {
                    if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                        c
                    } else {
                        '-'
                    }
                })
                .collect();
            if text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                text
            } else {
                format!("x{text}")
            }
        };
        Self(format!("{}:{}", clean(owner), clean(session)).into())
    }
}

/// One start of an agent for a device, laid out as a UUIDv7 (RFC 9562 §5.7): byte order is start order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// A boot that starts at `wall`, told apart from others of the same millisecond by `random`.
    pub fn new(wall: TaiNanos, random: [u8; 10]) -> Self {
        let millis = u64::try_from(wall.to_utc().0.div_euclid(1_000_000)).unwrap_or(0);
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// Takes exactly 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = hex::encode(self.0);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BootId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let error = || IdError {
            text: text.chars().take(160).collect(),
            what: "boot id",
            rule: "write a UUID: 32 hexadecimal digits with or without dashes",
        };
        let bytes = hex::decode(&digits).map_err(|_| error())?;
        Self::from_slice(&bytes).ok_or_else(error)
    }
}

impl Serialize for BootId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn boots_sort_by_start_and_print_as_uuids() {
        let wall = TaiNanos::parse_rfc3339("2026-11-21T14:32:07Z").unwrap();
        let first = BootId::new(wall, [0xff; 10]);
        let second = BootId::new(wall.plus(Duration::from_millis(1)), [0; 10]);
        assert!(first < second);
        assert_eq!(first.to_string().parse::<BootId>().unwrap(), first);
        assert_eq!(first.to_string().as_bytes()[14], b'7');
    }

    #[test]
    fn a_wrong_id_says_what_it_should_be() {
        let error = StreamId::new("no slash").unwrap_err().to_string();
        assert!(error.contains("`no slash` is not a stream id"), "{error}");
        assert!(DeviceId::new("../etc").is_err());
        assert!(DeviceId::new("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_or_refused(text in ".*") {
            if let Ok(id) = StreamId::new(&text) {
                prop_assert_eq!(StreamId::of(&id.device(), id.name()).unwrap(), id);
            }
            let _ = (DeviceId::new(&text), ClockId::new(&text), text.parse::<BootId>());
            prop_assert!(ClockId::new(ClockId::session(&text, &text).as_str()).is_ok());
        }
    }
}
