//! The board's serial port: a pseudo-terminal in raw mode.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::error::RigError;

/// How long the board waits for a client that does not read before it drops the answer, as a USB serial line does.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);

/// The board's end of the line.
pub struct SerialPort {
    board: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Keeps the line in raw mode, and the board's end readable, while no client has it open.
    line: OwnedFd,
}

impl SerialPort {
    /// Opens a line; clients open [`SerialPort::path`].
    ///
    /// # Errors
    /// [`RigError::PseudoTerminal`] when the system has none.
    pub fn open() -> Result<Self, RigError> {
        Self::try_open().map_err(RigError::PseudoTerminal)
    }

    fn try_open() -> io::Result<Self> {
        let board = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&board)?;
        unlockpt(&board)?;
        let name = ptsname(&board, Vec::new())?;
        let path = PathBuf::from(name.into_string().map_err(io::Error::other)?);
        let line = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut settings = tcgetattr(&line)?;
        settings.make_raw();
        settings.set_speed(115_200)?;
        tcsetattr(&line, OptionalActions::Now, &settings)?;
        rustix::io::ioctl_fionbio(&board, true)?;
        Ok(Self {
            board: watched(board)?,
            path,
            line,
        })
    }

    /// What a client opens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for bytes from the client.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.board.readable().await?;
            if let Ok(read) = ready.try_io(|board| Ok(rustix::io::read(board.get_ref(), &mut *buffer)?)) {
                // A client may have claimed the line for itself (TIOCEXCL) and be killed before it lets go. Since we hold the
                // line open, that claim would outlive it and lock its successor out.
                if let Err(error) = rustix::termios::ioctl_tiocnxcl(&self.line) {
                    tracing::debug!(%error, "could not lift a client's claim on the serial line");
                }
                return read;
            }
        }
    }

    /// Writes an answer; what a client does not take within a second is lost.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn write(&self, answer: &[u8]) -> io::Result<()> {
        let mut rest = answer;
        while !rest.is_empty() {
            let Ok(ready) = timeout(WRITE_PATIENCE, self.board.writable()).await else {
                tracing::warn!(lost = rest.len(), "nobody reads the board's serial port: answer lost");
                return Ok(());
            };
            if let Ok(written) = ready?.try_io(|board| Ok(rustix::io::write(board.get_ref(), rest)?)) {
                rest = &rest[written?..];
            }
        }
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may not own their descriptor; an OwnedFd does"
)]
fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// A stable path to the port, removed with the rig.
pub struct SerialLink(PathBuf);

impl SerialLink {
    /// Points `link` to `port`, replacing a link that a former rig left, and nothing else.
    ///
    /// # Errors
    /// [`RigError::SerialLink`] when something else is there, or the folder cannot be written.
    pub fn make(link: &Path, port: &Path) -> Result<Self, RigError> {
        Self::try_make(link, port).map_err(|source| RigError::SerialLink {
            path: link.to_owned(),
            source,
        })
    }

    fn try_make(link: &Path, port: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(link) {
            Ok(found) if found.file_type().is_symlink() => fs::remove_file(link)?,
            Ok(found) => {
                let kind = if found.file_type().is_char_device() {
                    "a device"
                } else {
                    "a file or folder"
                };
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{kind} is already there"),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder)?;
        }
        symlink(port, link)?;
        Ok(Self(link.to_owned()))
    }

    /// The link.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SerialLink {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(link = %self.0.display(), %error, "could not remove the serial link");
        }
    }
}
