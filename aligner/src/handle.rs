//! The way to the service from outside its loop: routes and other services in the process ask through it.

use std::sync::Arc;

use orrery_bus::{Position, SharedBus};
use orrery_protocol::{DeviceId, KeyId, PublicKey, TaiNanos, topics};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::Error;
use crate::store::Store;

/// A way to a service that may not have started yet. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<watch::Sender<Option<Live>>>);

impl Default for Handle {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("running", &self.0.borrow().is_some())
            .finish()
    }
}

#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) store: Store,
    pub(crate) bus: SharedBus,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// What the service's loop is asked to do.
pub(crate) enum Command {
    Enrol(Box<Enrol>),
    Revoke {
        device: DeviceId,
        key_id: KeyId,
        reply: oneshot::Sender<Result<bool, Error>>,
    },
    Devices(oneshot::Sender<Value>),
    Gaps {
        device: DeviceId,
        from: TaiNanos,
        to: TaiNanos,
        reply: oneshot::Sender<Vec<Value>>,
    },
    Status(oneshot::Sender<(Value, Vec<Position>)>),
    Record {
        key: String,
        record: Box<orrery_protocol::Record>,
    },
}

/// An enrolment.
pub(crate) struct Enrol {
    pub(crate) device: DeviceId,
    pub(crate) public: PublicKey,
    pub(crate) title: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) reply: oneshot::Sender<Result<bool, Error>>,
}

impl Handle {
    /// A handle for a service that is yet to run.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that only reads a stopped folder's store.
    pub fn read_only(store: Store, bus: SharedBus) -> Self {
        let handle = Self::default();
        let (commands, _) = mpsc::channel(1);
        handle.0.send_replace(Some(Live { store, bus, commands }));
        handle
    }

    pub(crate) fn set(&self, live: Option<Live>) {
        self.0.send_replace(live);
    }

    /// The store.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn store(&self) -> Result<Store, Error> {
        Ok(self.live()?.store)
    }

    /// Waits until the service runs.
    pub async fn ready(&self) {
        let mut running = self.0.subscribe();
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = running.wait_for(Option::is_some).await;
    }

    /// Enrols a device's key; true when it is new, durable when it returns.
    ///
    /// # Errors
    /// [`Error::KeyConflict`] when another valid key is there, [`Error::KeyRevoked`] when this one was revoked;
    /// [`Error::NotRunning`].
    pub async fn enrol(
        &self,
        device: DeviceId,
        public: PublicKey,
        title: Option<String>,
        protocol: Option<String>,
    ) -> Result<bool, Error> {
        self.ask(|reply| {
            Command::Enrol(Box::new(Enrol {
                device,
                public,
                title,
                protocol,
                reply,
            }))
        })
        .await?
    }

    /// Revokes a device's key, durable when it returns; false when it was revoked before. Of what the key signed, only
    /// what belongs to the boots known now, up to where they stand, is let in from here on.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] when the device has no such key; [`Error::NotRunning`].
    pub async fn revoke(&self, device: DeviceId, key_id: KeyId) -> Result<bool, Error> {
        self.ask(|reply| Command::Revoke { device, key_id, reply }).await?
    }

    pub(crate) async fn devices(&self) -> Result<Value, Error> {
        self.ask(Command::Devices).await
    }

    pub(crate) async fn gaps(&self, device: DeviceId, from: TaiNanos, to: TaiNanos) -> Result<Vec<Value>, Error> {
        self.ask(|reply| Command::Gaps {
            device,
            from,
            to,
            reply,
        })
        .await
    }

    /// The service's counters, and how far it is behind `orrery.raw`.
    pub(crate) async fn status(&self) -> Result<Value, Error> {
        let (mut status, consumed) = self.ask(Command::Status).await?;
        let ends = self.live()?.bus.end(topics::RAW).await?;
        let lag: u64 = ends
            .iter()
            .map(|end| {
                let next = consumed
                    .iter()
                    .find(|next| next.partition == end.partition)
                    .map_or(0, |next| next.offset);
                end.offset.saturating_sub(next)
            })
            .sum();
        status["lag"] = Value::from(lag.to_string());
        Ok(status)
    }

    pub(crate) async fn record(&self, key: String, record: orrery_protocol::Record) -> Result<(), Error> {
        let command = Command::Record {
            key,
            record: Box::new(record),
        };
        self.live()?.commands.send(command).await.map_err(|_| Error::NotRunning)
    }

    fn live(&self) -> Result<Live, Error> {
        self.0.borrow().clone().ok_or(Error::NotRunning)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.live()?
            .commands
            .send(command(reply))
            .await
            .map_err(|_| Error::NotRunning)?;
        answer.await.map_err(|_| Error::NotRunning)
    }
}
