//! CBOR (RFC 8949) for payloads: one encoder, one decoder that refuses what is too deep or trails behind.

use serde::{Serialize, de::DeserializeOwned};

/// Nesting a foreign value may have.
const MAX_DEPTH: usize = 32;

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing plain structs to memory cannot fail");
    bytes
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH).map_err(|error| match error {
        ciborium::de::Error::Io(_) => "it ends too early".to_owned(),
        ciborium::de::Error::Syntax(at) => format!("byte {at} is not CBOR"),
        ciborium::de::Error::Semantic(_, why) => why,
        ciborium::de::Error::RecursionLimitExceeded => {
            format!("it nests deeper than {MAX_DEPTH}")
        }
    })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("{} bytes trail behind it", rest.len()))
    }
}
