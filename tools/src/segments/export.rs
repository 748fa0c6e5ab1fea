//! Messages as files that any other program takes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ringpost::base::{BodyType, QueueId};
use ringpost::mail::stuffing::Unstuffer;
use serde_json::json;

use super::mail::{Mail, Reader, Trouble};
use super::recover::Taker;
use super::replay::{Recipient, Seen};

/// Writes messages into a directory.
pub(super) struct Export {
    directory: PathBuf,
}

impl Export {
    /// # Errors
    /// The directory is not there and cannot be made.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Export { directory: directory.to_owned() })
    }
}

impl Taker for Export {
    fn take(
        &mut self,
        id: QueueId,
        seen: &Seen,
        mail: &Mail,
        reader: &mut Reader<'_>,
        _: &mut dyn Write,
    ) -> Result<bool, Trouble> {
        let body = File::create(self.directory.join(format!("{id}.eml")))?;
        let (mut body, mut unstuffer) = (BufWriter::new(body), Unstuffer::new());
        reader.parts(mail, |part| {
            unstuffer.chunk(part).try_for_each(|piece| body.write_all(piece))
        })?;
        body.flush()?;
        let described = describe(id, seen, mail);
        fs::write(self.directory.join(format!("{id}.json")), format!("{described:#}\n"))?;
        Ok(true)
    }

    fn finish(&mut self, _: u64) -> String {
        format!("written to {}", self.directory.display())
    }
}

fn describe(id: QueueId, seen: &Seen, mail: &Mail) -> serde_json::Value {
    let envelope = &mail.envelope;
    let recipients = envelope.recipients.iter().zip(&seen.recipients).enumerate();
    let recipients: Vec<_> = recipients
        .map(|(index, (address, state))| {
            let Recipient { done, held, postponed, attempts, next_ms } = *state;
            let mut described = json!({
                "address": address,
                "pending": !done,
                "held": held && !done,
                "postponed": postponed && !done,
                "attempts": attempts,
                "next_attempt": (!done && next_ms > 0).then_some(next_ms / 1000),
            });
            if let Some(asked) = envelope.recipient_dsn(index) {
                if let Some(notify) = asked.notify {
                    described["notify"] = notify.words().collect::<Vec<_>>().into();
                }
                if let Some(orcpt) = &asked.orcpt {
                    described["orcpt"] = orcpt.as_str().into();
                }
            }
            described
        })
        .collect();
    let mut described = json!({
        "queue_id": id.to_string(),
        "sender": envelope.sender,
        "recipients": recipients,
        "arrival_time": envelope.arrival().as_secs(),
        "body_8bit": envelope.body_type == BodyType::EightBitMime,
        "smtputf8": envelope.smtputf8,
        "client": envelope.client,
        "helo": envelope.helo,
    });
    if let Some(dsn) = &envelope.dsn {
        if let Some(ret) = dsn.ret {
            described["ret"] = ret.keyword().into();
        }
        if let Some(envid) = &dsn.envid {
            described["envid"] = envid.as_str().into();
        }
    }
    described
}
