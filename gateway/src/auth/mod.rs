//! Who is asking, and may they: tokens, sessions, enrolment, and the one middleware in front of `/api/v1`.

mod enroll;
mod gate;
mod secret;
mod session;
mod trust;

pub use gate::gate;
pub use secret::{Fingerprint, random};
pub use session::{Origins, SignIn, sign_in, signed_in};
pub use trust::Trust;

pub mod routes {
    //! The handlers, with their OpenAPI paths.
    pub use super::enroll::{__path_enroll, __path_make_token, enroll, make_token};
}
