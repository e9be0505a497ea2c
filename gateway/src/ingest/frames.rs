//! The framing of `application/vnd.orrery.envelopes`: (u32 big-endian length, that many bytes), again and again.

use bytes::{Buf, Bytes};
use orrery_protocol::MAX_ENVELOPE;

/// Why a body is not a row of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body ends within a frame.
    #[error("the body ends within the frame ({have} of {want} bytes)")]
    Cut {
        /// Bytes that are there.
        have: usize,
        /// Bytes that should be.
        want: usize,
    },
    /// The length is beyond what an envelope may have.
    #[error("a length of {length} bytes; an envelope has 1 to {MAX_ENVELOPE}")]
    Length {
        /// What the frame says.
        length: usize,
    },
}

/// Splits a body into its frames without copying; ends after the first error.
pub fn frames(mut body: Bytes) -> impl Iterator<Item = Result<Bytes, FrameError>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let frame = split(&mut body);
        if frame.is_err() {
            body.clear();
        }
        Some(frame)
    })
}

fn split(body: &mut Bytes) -> Result<Bytes, FrameError> {
    if body.len() < 4 {
        return Err(FrameError::Cut {
            have: body.len(),
            want: 4,
        });
    }
    let length = body.get_u32() as usize;
    if length == 0 || length > MAX_ENVELOPE {
        return Err(FrameError::Length { length });
    }
    if body.len() < length {
        return Err(FrameError::Cut {
            have: body.len(),
            want: length,
        });
    }
    Ok(body.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(parts: &[&[u8]]) -> Bytes {
        let mut body = Vec::new();
        for part in parts {
            body.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
            body.extend_from_slice(part);
        }
        body.into()
    }

    #[test]
    fn frames_come_back_as_they_went_in() {
        let found: Result<Vec<Bytes>, _> = frames(framed(&[b"one", b"four", b"x"])).collect();
        assert_eq!(found.unwrap(), [&b"one"[..], b"four", b"x"]);
        assert_eq!(frames(Bytes::new()).count(), 0);
    }

    #[test]
    fn every_cut_body_ends_in_one_error() {
        let whole = framed(&[b"one", b"four"]);
        for length in 1..whole.len() {
            let found: Vec<_> = frames(whole.slice(..length)).collect();
            let whole_frames = usize::from(length >= 7);
            if length == 7 {
                assert!(found.iter().all(Result::is_ok));
            } else {
                assert_eq!(found.iter().filter(|frame| frame.is_ok()).count(), whole_frames);
                assert!(matches!(found.last(), Some(Err(FrameError::Cut { .. }))), "{length}");
            }
        }
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_taken() {
        let empty: Vec<_> = frames(Bytes::from_static(&[0, 0, 0, 0, 1])).collect();
        assert_eq!(empty, [Err(FrameError::Length { length: 0 })]);
        let huge: Vec<_> = frames(Bytes::from_static(&[0xff; 64])).collect();
        assert_eq!(
            huge,
            [Err(FrameError::Length {
                length: u32::MAX as usize
            })]
        );
    }
}
