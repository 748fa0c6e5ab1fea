//! Who asks: the user at the other end of the admin socket, as the kernel
//! vouches for it, in the words that records and log lines carry.

use std::path::Path;

/// The file that gives users their names.
const USERS: &str = "/etc/passwd";

/// `root (uid 0)`; without a name that the system's own file knows, `uid 1000`.
pub fn name(uid: u32) -> String {
    match find(Path::new(USERS), uid) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

/// The name of `uid` in a file of passwd(5) form.
fn find(users: &Path, uid: u32) -> Option<String> {
    let text = std::fs::read(users).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let is_it = fields.nth(1)?.parse() == Ok(uid);
        (is_it && is_plain(name)).then(|| name.to_owned())
    })
}

/// A name that cannot be mistaken for anything else in a record.
fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_users_file() {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("passwd");
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nposter:x:1000:1000::/:\n\
                    b\"d:x:1001:1:::\n+nis:x:bad:\n";
        std::fs::write(&users, text).unwrap();
        assert_eq!(find(&users, 0).as_deref(), Some("root"));
        assert_eq!(find(&users, 1000).as_deref(), Some("poster"));
        assert_eq!(find(&users, 1001), None, "not a name to be put into quotes");
        assert_eq!(find(&users, 1002), None);
        assert_eq!(find(&dir.path().join("none"), 0), None);
        assert_eq!(name(4_000_000_123), "uid 4000000123");
    }
}
