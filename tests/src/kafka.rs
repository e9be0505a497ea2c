//! A real Apache Kafka broker, KRaft, one process.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The user that the authenticated listener knows.
pub const USER: &str = "orrery";
/// That user's password.
pub const PASSWORD: &str = "correct horse";

/// Any 16 bytes in URL-safe base64 name a cluster.
const CLUSTER_ID: &str = "b3JyZXJ5LXRlc3RzLTAwMA";
const PATIENCE: Duration = Duration::from_secs(60);

/// A started broker on loopback ports; killed, with its data, when dropped.
pub struct Kafka {
    child: Option<Child>,
    folder: tempfile::TempDir,
    plain: u16,
    sasl: u16,
}

impl Kafka {
    /// Starts a broker and waits until it accepts connections. The first call on a machine fetches it.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start() -> Self {
        let [plain, sasl, controller] = free_ports();
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(
            folder.path().join("server.properties"),
            properties(folder.path(), plain, sasl, controller),
        )
        .expect("the properties are written");
        let formatted = java(folder.path(), "kafka.tools.StorageTool")
            .args(["format", "--standalone", "-t", CLUSTER_ID, "-c", "server.properties"])
            .output()
            .expect("java runs");
        let said = String::from_utf8_lossy(&formatted.stderr);
        assert!(formatted.status.success(), "formatting Kafka's storage failed: {said}");
        let mut kafka = Self {
            child: None,
            folder,
            plain,
            sasl,
        };
        kafka.resume();
        kafka
    }

    /// HOST:PORT for clients without credentials.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    /// HOST:PORT for clients that log in with SASL PLAIN as [`USER`].
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.sasl)
    }

    /// The broker as `--bus` takes it.
    pub fn url(&self) -> String {
        format!("kafka://{}", self.address())
    }

    /// Kills the broker without warning; its data and ports stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have died by itself; either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a killed broker again on its data and ports.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn resume(&mut self) {
        let log_path = self.folder.path().join("broker.log");
        let log = std::fs::File::create(&log_path).expect("a log file");
        let mut child = java(self.folder.path(), "kafka.Kafka")
            .arg("server.properties")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("java runs");
        let address = SocketAddr::from(([127, 0, 0, 1], self.plain));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            let said = || std::fs::read_to_string(&log_path).unwrap_or_default();
            let ended = child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "Kafka ended with {ended:?}:\n{}", said());
            assert!(
                Instant::now() < deadline,
                "Kafka does not listen on {address}:\n{}",
                said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child = Some(child);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

fn java(folder: &Path, class: &str) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(jars().join("*"))
        .arg(class)
        .current_dir(folder);
    command
}

fn jars() -> &'static PathBuf {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/fetch-kafka.sh");
        let output = Command::new("bash").arg(script).output().expect("bash runs");
        assert!(
            output.status.success(),
            "{script} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// Ports that were free a moment ago: a broker must know its own before it starts.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free loopback port"));
    listeners.map(|listener| listener.local_addr().expect("a bound port has an address").port())
}

fn properties(folder: &Path, plain: u16, sasl: u16, controller: u16) -> String {
    let data = folder.join("data");
    let data = data.display();
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         sasl.enabled.mechanisms=PLAIN\n\
         listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_{USER}=\"{PASSWORD}\";\n\
         log.dirs={data}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n"
    )
}
