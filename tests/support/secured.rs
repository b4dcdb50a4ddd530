//! A broker that authenticates its clients, has access control lists, and advertises addresses that cannot be reached.

use super::acl::Acls;
use super::stack::{OwnKafka, free_port};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tempfile::TempDir;

/// Users that it knows by the mechanism PLAIN. Each has a password of its own, and no rights.
const USERS: usize = 20;

/// The one that it knows by SCRAM-SHA-256.
pub const SCRAM_USER: &str = "scram";

/// One broker, shared by the tests that need one at the same time. A client without a password is its administrator.
pub struct Secured {
    /// Every client may connect, and may do everything.
    pub open: String,
    /// SASL, without TLS.
    pub sasl: String,
    /// TLS, without users.
    pub tls: String,
    /// SASL and TLS.
    pub sasl_tls: String,
    /// TLS, with a certificate of the client.
    pub mutual_tls: String,
    /// This listener answers, and sends its clients to a host that does not exist,
    pub unresolved: String,
    /// or to a port at which nothing listens.
    pub gone: String,
    pub acls: Acls,
    files: TempDir,
    next_user: AtomicUsize,
    _kafka: OwnKafka,
}

/// A host name that no resolver knows (RFC 6761).
pub const NO_HOST: &str = "kafka.invalid";

static SHARED: Mutex<Weak<Secured>> = Mutex::new(Weak::new());

impl Secured {
    /// The one that is running, or a new one. It ends with the last test that has it.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    fn start() -> Self {
        let files = TempDir::new().expect("a directory for temporary files");
        make_key(files.path().join("broker.p12"), files.path().join("ca.pem"));
        let mut ports = Vec::new();
        while ports.len() < 8 {
            let port = free_port();
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let address = |nth: usize| format!("127.0.0.1:{}", ports[nth]);
        let properties = files.path().join("properties");
        std::fs::write(&properties, properties_of(&ports, &files)).expect("a directory of ours");
        let environment = vec![
            ("STACK_KAFKA_PROPERTIES", properties.to_str().expect("plain names").to_owned()),
            ("STACK_KAFKA_SCRAM", format!("SCRAM-SHA-256=[name={SCRAM_USER},password={}]", password(SCRAM_USER))),
        ];
        let kafka = OwnKafka::start_with(ports[0], ports[7], environment);
        Self {
            open: address(0),
            sasl: address(1),
            tls: address(2),
            sasl_tls: address(3),
            mutual_tls: address(4),
            unresolved: address(5),
            gone: address(6),
            acls: Acls { address: address(0) },
            files,
            next_user: AtomicUsize::new(0),
            _kafka: kafka,
        }
    }

    /// A user of this test alone, without any rights.
    pub fn user(&self) -> String {
        let nth = self.next_user.fetch_add(1, Relaxed);
        assert!(nth < USERS, "more users are needed");
        format!("user{nth}")
    }

    /// The file with the certificate that its own is to be trusted by.
    pub fn ca(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }
}

/// Flags of a client that is this user, with this password.
pub fn as_user(broker: &str, mechanism: &str, user: &str, password: &str) -> Vec<String> {
    let settings = [
        "security.protocol=SASL_PLAINTEXT".to_owned(),
        format!("sasl.mechanism={mechanism}"),
        format!("sasl.username={user}"),
        format!("sasl.password={password}"),
    ];
    flags(broker, &settings)
}

/// Flags of a client with these settings.
pub fn flags(broker: &str, settings: &[impl ToString]) -> Vec<String> {
    let settings = settings.iter().flat_map(|setting| ["--kafka".to_owned(), setting.to_string()]);
    ["--brokers".to_owned(), broker.to_owned()].into_iter().chain(settings).collect()
}

/// A password that is easily found where it must not be.
pub fn password(user: &str) -> String {
    format!("secret-of-{user}")
}

fn properties_of(ports: &[u16], files: &TempDir) -> String {
    let names = ["PLAINTEXT", "SASL", "TLS", "SASLTLS", "MUTUAL", "UNRESOLVED", "GONE", "CONTROLLER"];
    let protocols = ["PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL", "SSL", "PLAINTEXT", "PLAINTEXT", "PLAINTEXT"];
    let listeners: Vec<_> = names.iter().zip(ports).map(|(name, port)| format!("{name}://127.0.0.1:{port}")).collect();
    let mut advertised = listeners[..7].to_vec();
    advertised[5] = format!("UNRESOLVED://{NO_HOST}:{}", ports[5]);
    advertised[6] = "GONE://127.0.0.1:1".into();
    let map: Vec<_> = names.iter().zip(protocols).map(|(name, protocol)| format!("{name}:{protocol}")).collect();
    let users: String =
        (0..USERS).map(|nth| format!(" user_user{nth}=\"{}\"", password(&format!("user{nth}")))).collect();
    let security = "org.apache.kafka.common.security";
    let mut lines = vec![
        format!("listeners={}", listeners.join(",")),
        format!("advertised.listeners={}", advertised.join(",")),
        format!("listener.security.protocol.map={}", map.join(",")),
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256".into(),
        format!("ssl.keystore.location={}", files.path().join("broker.p12").display()),
        "ssl.keystore.password=changeit".into(),
        format!("ssl.truststore.location={}", files.path().join("broker.p12").display()),
        "ssl.truststore.password=changeit".into(),
        "listener.name.mutual.ssl.client.auth=required".into(),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".into(),
        "super.users=User:ANONYMOUS".into(),
    ];
    for listener in ["sasl", "sasltls"] {
        let jaas = |mechanism| format!("listener.name.{listener}.{mechanism}.sasl.jaas.config");
        lines.push(format!("{}={security}.plain.PlainLoginModule required{users};", jaas("plain")));
        lines.push(format!("{}={security}.scram.ScramLoginModule required;", jaas("scram-sha-256")));
    }
    lines.join("\n") + "\n"
}

/// A key with a certificate that it has signed itself, for the address 127.0.0.1 and no host name.
fn make_key(store: PathBuf, certificate: PathBuf) {
    let store = store.to_str().expect("plain names");
    let keytool = |args: &[&str]| {
        let always = ["-alias", "broker", "-storetype", "PKCS12", "-keystore", store, "-storepass", "changeit"];
        let output = Command::new("keytool").args(args).args(always).output().expect("Java's keytool can be run");
        assert!(output.status.success(), "keytool {args:?}: {}", String::from_utf8_lossy(&output.stdout));
    };
    let key = ["-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1"];
    keytool(&[&["-genkeypair"], &key[..]].concat());
    keytool(&["-exportcert", "-rfc", "-file", certificate.to_str().expect("plain names")]);
}
