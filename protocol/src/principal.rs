//! Who is asking. Only the gateway authenticates; services receive a [`Principal`].

use serde::{Deserialize, Serialize};

use crate::DeviceId;

/// What a caller may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything, commands devices, makes enrolment tokens.
    Operator,
    /// An edge agent: sends envelopes and reads commands of its own devices.
    Agent {
        /// The devices whose envelopes it may send.
        devices: Vec<DeviceId>,
    },
    /// Holds a one-time enrolment token.
    Enroller,
    /// Anyone: health checks and the login page.
    Public,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// A name for logs, leases and provenance: `operator`, `agent bench-3`.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Principal {
    /// The operator of a local instance.
    pub fn operator() -> Self {
        Self {
            name: "operator".to_owned(),
            role: Role::Operator,
        }
    }

    /// Whether this caller may do what operators do.
    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }

    /// Whether this caller may act for the device.
    pub fn may_send_for(&self, device: &DeviceId) -> bool {
        match &self.role {
            Role::Operator => true,
            Role::Agent { devices } => devices.contains(device),
            Role::Enroller | Role::Public => false,
        }
    }
}
