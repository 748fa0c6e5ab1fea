//! What a reload may change. Keys that are built into running parts keep the
//! value they had at the start, and are named, so that nobody believes
//! otherwise.

use crate::config::Config;

/// `fresh` with those keys of `old` that only a restart can change, and the
/// names of those that differed.
pub fn keep_fixed(old: &Config, fresh: Config) -> (Config, Vec<&'static str>) {
    let mut changed = Vec::new();
    let mut note = |differs: bool, key| {
        if differs {
            changed.push(key);
        }
    };
    note(old.hostname != fresh.hostname, "hostname");
    note(old.data_dir != fresh.data_dir, "data_dir");
    note(old.cores != fresh.cores, "cores");
    note(old.durability != fresh.durability, "durability");
    note(old.listeners != fresh.listeners, "[[listener]]");
    note(old.queue.segment_size != fresh.queue.segment_size, "queue.segment_size");
    note(old.admin != fresh.admin, "[admin]");
    let mut config = fresh;
    config.hostname.clone_from(&old.hostname);
    config.data_dir.clone_from(&old.data_dir);
    config.cores = old.cores.clone();
    config.durability = old.durability;
    config.listeners.clone_from(&old.listeners);
    config.queue.segment_size = old.queue.segment_size;
    config.admin = old.admin.clone();
    (config, changed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn keys_that_need_a_restart_keep_their_value() {
        let old = Config::default();
        let mut fresh = old.clone();
        fresh.data_dir = Path::new("/elsewhere").to_owned();
        fresh.limits.recipients = 7;
        fresh.delivery.port = 2526;
        fresh.sites = vec![Default::default()];
        fresh.admin.http = None;
        let (config, changed) = keep_fixed(&old, fresh);
        assert_eq!(changed, ["data_dir", "[admin]"]);
        assert_eq!((config.limits.recipients, config.delivery.port), (7, 2526));
        assert_eq!(config.sites.len(), 1);
        assert_eq!((config.data_dir, config.admin), (old.data_dir, old.admin));
        // Everything that mail on its way depends on is taken.
        let text = "hostname = \"localhost\"\n[[listener]]\naddress = \"127.0.0.1:2525\"\n\
                    tls = \"optional\"\n[tls]\ncertificate = \"a\"\nkey = \"b\"\n\
                    [access]\nrelay_domains = [\"x.org\"]\n\
                    [[route]]\ndomain = \"x.org\"\nnext_hop = \"mx\"\n\
                    [delivery]\nport = 26\nallow_private_targets = true\n\
                    [[site]]\ndomain = \"x.org\"\nmessage_rate = \"1/s\"\n\
                    [queue]\nretry = [\"1s\"]\nexpire = \"1h\"\ndelay_notice = \"off\"\n\
                    [dns]\nservers = [\"192.0.2.53\"]\n[limits]\nrecipients = 200\n";
        let fresh = Config::from_text("x", text, &[]).unwrap();
        let old = Config { data_dir: fresh.data_dir.clone(), ..Config::default() };
        assert_ne!(old, fresh);
        assert_eq!(keep_fixed(&old, fresh.clone()), (fresh, vec![]));
        let (same, changed) = keep_fixed(&Config::default(), Config::default());
        assert_eq!((same, changed), (Config::default(), vec![]));
    }
}
