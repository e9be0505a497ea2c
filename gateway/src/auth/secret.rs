//! Bearer secrets: 256 random bits with a prefix that says what they are, compared without a timing leak.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::KeysError;

/// What a secret opens; its prefix lets people and secret scanners tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The operator's token.
    Operator,
    /// A one-time token that enrols devices.
    Enrolment,
    /// An edge agent's token.
    Agent,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "orr_op_",
            Self::Enrolment => "orr_en_",
            Self::Agent => "orr_ag_",
        }
    }

    /// What a presented secret claims to be.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Operator, Self::Enrolment, Self::Agent]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
    }
}

/// A secret in clear. It never prints itself.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A fresh secret of the kind.
    pub fn generate(kind: Kind) -> Result<Self, KeysError> {
        let bytes: [u8; 32] = random()?;
        Ok(Self(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// A secret read back from its file.
    pub fn from_text(text: &str, kind: Kind) -> Option<Self> {
        let text = text.trim();
        let body = text.strip_prefix(kind.prefix())?;
        let complete = URL_SAFE_NO_PAD.decode(body).is_ok_and(|bytes| bytes.len() == 32);
        complete.then(|| Self(text.to_owned()))
    }

    /// The text to hand out, once and to whom it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be stored and compared.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }

    /// The value of the session cookie that this secret opens: it cannot be turned back into the secret, and a new
    /// secret ends every session of the old one.
    pub fn session(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"orrery session v1\0");
        hash.update(self.0.as_bytes());
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The SHA-256 of a secret. With 256 random bits inside, a slow hash would add nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a presented text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether two fingerprints are one, in a time that does not depend on where they differ.
    pub fn same(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(other.0).fold(0u8, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }

    /// Lower-case hex, as stored.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Reads what [`Fingerprint::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// Bytes from the operating system's randomness.
pub fn random<const N: usize>() -> Result<[u8; N], KeysError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeysError::Randomness(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_and_tells_its_kind_and_never_prints_itself() {
        let secret = Secret::generate(Kind::Agent).unwrap();
        assert_eq!(Kind::of(secret.expose()), Some(Kind::Agent));
        let again = Secret::from_text(&format!("{}\n", secret.expose()), Kind::Agent).unwrap();
        assert!(again.fingerprint().same(&secret.fingerprint()));
        assert!(!format!("{secret:?}").contains(&secret.expose()[8..]));
        assert!(Secret::from_text(secret.expose(), Kind::Operator).is_none());
        assert!(Secret::from_text("orr_ag_short", Kind::Agent).is_none());
    }

    #[test]
    fn two_secrets_differ_in_everything_derived() {
        let (a, b) = (
            Secret::generate(Kind::Operator).unwrap(),
            Secret::generate(Kind::Operator).unwrap(),
        );
        assert!(!a.fingerprint().same(&b.fingerprint()));
        assert_ne!(a.session(), b.session());
        assert!(!a.session().contains(&a.expose()[7..]));
    }
}
