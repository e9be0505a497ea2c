//! Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint): what a log commits itself to.
//!
//! ```text
//! <origin>
//! <size, decimal>
//! <root hash, base64>
//!
//! — <key name> <base64 of 4 bytes of key hash and 64 bytes of Ed25519 signature>
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use orrery_protocol::{PublicKey, SealKey};
use sha2::{Digest as _, Sha256};

use crate::tree::Hash;

/// The signature type of Ed25519 in signed notes.
const ED25519: u8 = 0x01;
/// A note is small; more is not a checkpoint.
const MAX_NOTE: usize = 64 * 1024;

/// Why a note was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It does not have a checkpoint's form.
    #[error("this is not a checkpoint: {0}")]
    Malformed(&'static str),
    /// Its signature is missing, by another key, or false.
    #[error("the checkpoint carries no valid signature by {0}: it was altered, or signed with another key")]
    Unsigned(VerifierKey),
    /// A verifier key in another form.
    #[error("`{0}` is not a verifier key: write NAME+HASH+KEY as in the log's file `vkey`")]
    BadKey(String),
}

/// What a log's owner signs: this many entries have this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique in the world, such as `orrery.example/bench-3`.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note; the key's name is the origin.
    pub fn sign(&self, key: &SealKey) -> String {
        let text = self.text();
        let verifier = VerifierKey::new(&self.origin, key.public());
        let mut signature = verifier.hash().to_vec();
        signature.extend_from_slice(&key.sign(text.as_bytes()));
        format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64.encode(signature))
    }

    /// Reads a note and checks its signature.
    ///
    /// # Errors
    /// [`NoteError`] says what is wrong with it.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let (text, signatures) = split_note(note)?;
        let signed = signatures
            .lines()
            .filter_map(|line| line.strip_prefix("\u{2014} ")?.split_once(' '))
            .any(|(name, signature)| {
                let bytes = BASE64.decode(signature).unwrap_or_default();
                let Some((hash, signature)) = bytes.split_at_checked(4) else {
                    return false;
                };
                name == key.name && hash == key.hash() && key.key.verify(text.as_bytes(), signature)
            });
        if !signed {
            return Err(NoteError::Unsigned(key.clone()));
        }
        let checkpoint = Self::parse(text)?;
        if checkpoint.origin == key.name {
            Ok(checkpoint)
        } else {
            Err(NoteError::Malformed("its origin is not its key's name"))
        }
    }

    /// Reads a note without looking at its signatures.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn read_unverified(note: &str) -> Result<Self, NoteError> {
        Self::parse(split_note(note)?.0)
    }

    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let origin = lines
            .next()
            .filter(|origin| !origin.is_empty())
            .ok_or(NoteError::Malformed("it has no origin"))?;
        let size = lines.next().unwrap_or_default();
        let canonical = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size
            .parse()
            .ok()
            .filter(|_| canonical)
            .ok_or(NoteError::Malformed("its size is not a number"))?;
        let root = BASE64.decode(lines.next().unwrap_or_default()).unwrap_or_default();
        let root = root
            .try_into()
            .map_err(|_| NoteError::Malformed("its root is not 32 bytes of base64"))?;
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }
}

/// The text up to and with its last newline, and the signature lines after the blank line.
fn split_note(note: &str) -> Result<(&str, &str), NoteError> {
    let control = |c: char| c != '\n' && c.is_control();
    if note.len() > MAX_NOTE || note.contains(control) {
        return Err(NoteError::Malformed("it holds control characters or is too long"));
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no signature"))?;
    Ok((&note[..=at], &note[at + 2..]))
}

/// A key to check checkpoints with: `<name>+<hash>+<base64 of 0x01 and the Ed25519 key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The key's name, which is the log's origin.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

impl VerifierKey {
    /// A key by its name.
    pub fn new(name: &str, key: PublicKey) -> Self {
        Self {
            name: name.to_owned(),
            key,
        }
    }

    /// The four bytes that stand for the key in a signature line.
    pub fn hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        std::array::from_fn(|i| digest[i])
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.hash()), BASE64.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let bad = || NoteError::BadKey(text.trim_end().to_owned());
        let mut parts = text.trim().splitn(3, '+');
        let (name, hash, key) = match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(hash), Some(key)) if is_key_name(name) => (name, hash, key),
            _ => return Err(bad()),
        };
        let bytes = BASE64.decode(key).map_err(|_| bad())?;
        let [ED25519, key @ ..] = bytes.as_slice() else {
            return Err(bad());
        };
        let verifier = Self::new(name, PublicKey::from_bytes(key).map_err(|_| bad())?);
        if hex::encode(verifier.hash()) == hash {
            Ok(verifier)
        } else {
            Err(bad())
        }
    }
}

/// Whether a text may name a key and so be a log's origin: not empty, without spaces and plus signs.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Go module `golang.org/x/mod/sumdb/note`, whose form signed-note describes.
    #[test]
    fn the_published_example_verifies() {
        let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
            .parse()
            .unwrap();
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\
                    \n\
                    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        // Signed correctly and not a checkpoint: the signature passes, the form does not.
        assert!(matches!(Checkpoint::open(note, &key), Err(NoteError::Malformed(_))));
        let altered = note.replace("problem is", "answer is");
        assert!(matches!(Checkpoint::open(&altered, &key), Err(NoteError::Unsigned(_))));
        assert_eq!(
            key.to_string(),
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        );
    }

    #[test]
    fn a_checkpoint_opens_with_its_key_and_with_no_other() {
        let key = SealKey::from_seed(&[7; 32]);
        let checkpoint = Checkpoint {
            origin: "orrery.example/log".to_owned(),
            size: 12,
            root: [3; 32],
        };
        let note = checkpoint.sign(&key);
        let verifier = VerifierKey::new("orrery.example/log", key.public());
        assert_eq!(Checkpoint::open(&note, &verifier).unwrap(), checkpoint);
        assert_eq!(verifier.to_string().parse::<VerifierKey>().unwrap(), verifier);
        let stranger = VerifierKey::new("orrery.example/log", SealKey::from_seed(&[8; 32]).public());
        assert!(matches!(
            Checkpoint::open(&note, &stranger),
            Err(NoteError::Unsigned(_))
        ));
        let renamed = VerifierKey::new("orrery.example/other", key.public());
        assert!(Checkpoint::open(&note, &renamed).is_err());
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(altered) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(
                Checkpoint::open(&altered, &verifier).is_err(),
                "byte {at} altered: {altered}"
            );
        }
    }
}
