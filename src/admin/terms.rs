//! The terms on which a message was taken, as `ringpost queue show` prints them.

use serde::{Deserialize, Serialize};

use super::print::utc;
use super::view::is_false;
use crate::base::terms::{ByMode, Terms};

fn is_zero(number: &i8) -> bool {
    *number == 0
}

/// The terms of a message. What is absent was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsView {
    /// Its sender wanted it kept until then, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<u64>,
    /// When it is to be delivered, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_by: Option<u64>,
    /// What is done then: `return` or `notify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_mode: Option<String>,
    /// Each relay on the way is to be reported.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_trace: bool,
    /// MT-PRIORITY.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i8,
    /// It may go over TLS only, to servers that see to that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub require_tls: bool,
    /// It says of itself that TLS is not needed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls_optional: bool,
    /// Its body promises nothing about lines.
    #[serde(default, skip_serializing_if = "is_false")]
    pub binary: bool,
    /// Who authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// TLS of the session that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secured: Option<String>,
}

impl From<&Terms> for TermsView {
    fn from(terms: &Terms) -> Self {
        let by = terms.deliver_by;
        let mode = |mode| if mode == ByMode::Return { "return" } else { "notify" };
        TermsView {
            hold_until: terms.hold_until().map(|at| at.as_secs()),
            deliver_by: by.map(|by| by.at().as_secs()),
            by_mode: by.map(|by| mode(by.mode).to_owned()),
            by_trace: by.is_some_and(|by| by.trace),
            priority: terms.priority,
            require_tls: terms.require_tls,
            tls_optional: terms.tls_optional,
            binary: terms.binary,
            user: terms.user.clone(),
            secured: terms.secured.clone(),
        }
    }
}

impl TermsView {
    /// Each in words.
    pub fn lines(&self) -> Vec<String> {
        let mode = self.by_mode.as_deref().unwrap_or_default();
        let trace = if self.by_trace { ", traced" } else { "" };
        let said = |is_said: bool, words: &str| is_said.then(|| words.to_owned());
        let lines = [
            self.hold_until.map(|at| format!("kept until {}", utc(at))),
            self.deliver_by.map(|at| format!("to be delivered by {}, else {mode}{trace}", utc(at))),
            (self.priority != 0).then(|| format!("priority {}", self.priority)),
            said(self.require_tls, "TLS required all the way"),
            said(self.tls_optional, "TLS not needed, says its header"),
            said(self.binary, "binary body"),
            self.user.as_ref().map(|user| format!("submitted by {user}")),
            self.secured.as_ref().map(|tls| format!("came over {tls}")),
        ];
        lines.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::terms::DeliverBy;

    #[test]
    fn only_what_was_asked_for_is_told() {
        let none = TermsView::from(&Terms::default());
        assert_eq!((none.lines().len(), serde_json::to_string(&none).unwrap()), (0, "{}".into()));
        let terms = Terms {
            deliver_by: Some(DeliverBy {
                at_ms: 1_700_000_000_000,
                mode: ByMode::Return,
                trace: true,
            }),
            priority: -2,
            require_tls: true,
            user: Some("ann".into()),
            ..Terms::default()
        };
        let view = TermsView::from(&terms);
        assert_eq!(
            view.lines(),
            [
                "to be delivered by 2023-11-14T22:13:20Z, else return, traced",
                "priority -2",
                "TLS required all the way",
                "submitted by ann"
            ]
        );
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(
            json,
            r#"{"deliver_by":1700000000,"by_mode":"return","by_trace":true,"priority":-2,"#
                .to_owned()
                + r#""require_tls":true,"user":"ann"}"#
        );
        assert_eq!(serde_json::from_str::<TermsView>(&json).unwrap(), view);
    }
}
