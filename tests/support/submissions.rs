//! A server that takes mail from users over STARTTLS and over implicit TLS, from
//! hosts over SMTP and LMTP, and passes all on to one hop whose certificate it verifies: for
//! clients that others have made.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use ringpost::base::scram::ITERATIONS_MIN;
use ringpost::base::users::{Certificate, Sender, User, UsersFile};
use ringpost::policy::password;
use ringpost::proto::sasl::derive_keys;

use super::authority::Authority;
use super::dns::DnsServer;
use super::hop::{Act, Hop, Skills, Taken};
use super::process::Server;
use super::tls::Files;

/// The name in the server's certificate.
pub const NAME: &str = "relay.test";

/// The server, and what it needs.
pub struct Submissions {
    // The server ends before the directory goes.
    pub server: Server,
    pub hop: Hop,
    /// Submission with STARTTLS, with implicit TLS, LMTP with STARTTLS, and SMTP with
    /// STARTTLS, where users may authenticate too.
    pub starttls: SocketAddr,
    pub implicit: SocketAddr,
    pub lmtp: SocketAddr,
    pub relay: SocketAddr,
    _dns: DnsServer,
    folder: tempfile::TempDir,
}

impl Submissions {
    /// One with the user `alice` (password `pencil`, certificate `alice.test`), who
    /// may send as anybody at `x.test`, and `gate` (`sesame`), who may as all.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let shown = Files::self_signed(folder.path(), "alice.test");
        let mut alice = user("alice", "pencil", "@x.test");
        alice.certificates.push(fingerprint(&shown));
        let mut users = UsersFile::new([9; 32]);
        users.add(alice);
        users.add(user("gate", "sesame", "*"));
        std::fs::write(at("users"), users.to_string()).unwrap();
        let authority = Authority::new();
        let own = authority.files(folder.path(), NAME);
        authority.write(&at("authority.pem"));
        Authority::new().write(&at("other.pem"));
        let skills = Skills {
            tls: Some(authority.server(&["hop.test"])),
            offers: &["DSN", "REQUIRETLS"],
            ..Skills::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hop = Hop::skilled(listener, skills, |_| Act::Well);
        let dns = DnsServer::start();
        dns.set_addresses("hop.test", &["127.0.0.1"]);
        let port = hop.address.port();
        let listener = |kind: &str, tls: &str| {
            let address = r#"address="127.0.0.1:0", xforward_from=["127.0.0.1"]"#;
            let auth = kind != "lmtp";
            format!("{{{address}, kind={kind:?}, tls={tls:?}, auth={auth}}}")
        };
        let listeners = [
            listener("submission", "required"),
            listener("submissions", "implicit"),
            listener("lmtp", "optional"),
            listener("relay", "optional"),
        ];
        let settings = [
            format!("listener=[{}]", listeners.join(", ")),
            format!("tls.certificate={:?}", own.certificate),
            format!("tls.key={:?}", own.key),
            r#"tls.client_certificates="request""#.to_owned(),
            format!("auth.users={:?}", at("users")),
            r#"auth.failure_delay="10ms""#.to_owned(),
            format!("delivery.tls_ca={:?}", at("authority.pem")),
            format!("dns.servers=[\"{}\"]", dns.address),
            format!(r#"route=[{{domain="*", next_hop="hop.test:{port}", tls="verified"}}]"#),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Server::start(&at("data"), &settings);
        let [starttls, implicit, lmtp, relay] = listening(&server);
        Submissions { server, hop, starttls, implicit, lmtp, relay, _dns: dns, folder }
    }

    /// A file of the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority that has signed the server's certificate and the hop's.
    pub fn authority(&self) -> PathBuf {
        self.at("authority.pem")
    }

    /// The commands that the hop has heard.
    pub fn commands(&self) -> Vec<String> {
        self.hop.seen(|seen| seen.commands.iter().map(|(_, line)| line.clone()).collect())
    }

    /// How often `user` has authenticated by `mechanism`, as far as the log goes.
    pub fn authenticated(&self, user: &str, mechanism: &str) -> usize {
        let end = format!(" user={user:?} mechanism={mechanism}");
        let log = self.server.log();
        log.lines().filter(|line| line.contains(" authenticated ") && line.ends_with(&end)).count()
    }

    /// Waits until the server has said that it took a message for this recipient.
    #[track_caller]
    pub fn accepted(&self, recipient: &str) -> String {
        let to = format!("<{recipient}>");
        self.server.wait_log(|line| line.contains(" accepted ") && line.contains(&to))
    }
}

/// Where a server with so many listeners listens, in their order.
pub fn listening<const COUNT: usize>(server: &Server) -> [SocketAddr; COUNT] {
    let ready = server.wait_log(|line| line.contains(" ready "));
    let addresses = ready.split(&['=', ' ', ',', '"'][..]).filter_map(|word| word.parse().ok());
    let addresses: Vec<SocketAddr> = addresses.filter(|address| *address != server.http).collect();
    addresses.try_into().unwrap_or_else(|_| panic!("not {COUNT} listeners in {ready}"))
}

fn user(name: &str, secret: &str, sender: &str) -> User {
    let rounds = ITERATIONS_MIN.try_into().unwrap();
    User {
        password: Some(password::hash(secret, &[7; password::SALT_LEN])),
        scram: Some(derive_keys(secret, b"salt of a user", rounds)),
        senders: vec![Sender::parse(sender).unwrap()],
        ..User::new(name.into())
    }
}

fn fingerprint(files: &Files) -> Certificate {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &files.der());
    Certificate::Sha256(hash.as_ref().try_into().unwrap())
}

/// The message among those taken whose field `X-Test` is `name`.
#[track_caller]
pub fn by_name<'a>(taken: &'a [Taken], name: &str) -> &'a Taken {
    let found = taken.iter().find(|taken| taken.name() == name);
    found.unwrap_or_else(|| panic!("{name} did not arrive"))
}

/// A file with one line that only its owner may read.
pub fn secret(path: &Path, line: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("{line}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}
