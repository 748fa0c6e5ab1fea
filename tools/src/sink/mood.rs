//! What one session of the sink does beside taking mail: draws from chance what
//! is refused, delayed or broken off, and keeps count of what the client was
//! refused. What happens follows from the seed, the number of the connection
//! and what the client says, not from what other connections do.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost::base::{EnhancedCode, Reply};
use ringpost::proto::smtp::server::Question;

use super::limits::Limits;
use super::options::{Break, Latency, Options, Reject, Step, What};
use super::persona::{Facts, Persona, Reason};
use super::tls::{BadTls, Flaw};
use crate::draw::Draw;

/// What was asked for, shared by the sessions of a worker.
pub struct Habits {
    latency: Vec<Latency>,
    rejects: Vec<Reject>,
    drops: Vec<Break>,
    halves: Vec<Break>,
    bad_tls: Vec<BadTls>,
    tarpit: Option<Duration>,
    persona: Persona,
    messages_per_connection: Option<u64>,
    seed: u64,
    /// The limits, shared by all workers.
    pub limits: Arc<Limits>,
    /// True if there is nothing of all this: a session need not ask.
    pub calm: bool,
}

impl Habits {
    /// Those of `options`.
    pub fn new(options: &Options, seed: u64, limits: Arc<Limits>) -> Self {
        let mut drops = options.drop.clone();
        drops.push(Break { share: options.drop_after_dot, step: Step::Dot });
        drops.retain(|one| one.share > 0.0);
        let calm = options.latency.is_empty()
            && options.reject.is_empty()
            && drops.is_empty()
            && options.half_reply.is_empty()
            && options.tarpit.is_none()
            && options.messages_per_connection.is_none()
            && !limits.are_set();
        Habits {
            latency: options.latency.clone(),
            rejects: options.reject.clone(),
            drops,
            halves: options.half_reply.clone(),
            bad_tls: options.security.bad_tls.clone(),
            tarpit: options.tarpit,
            persona: options.persona,
            messages_per_connection: options.messages_per_connection,
            seed,
            limits,
            calm,
        }
    }
}

/// What is done at a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Act {
    /// Wait so long first.
    pub wait: Duration,
    /// Then close without an answer.
    pub drop: bool,
    /// Or close after half of the answer.
    pub half: bool,
    /// Or refuse.
    pub refuse: Option<Reply>,
}

/// One session.
pub struct Mood {
    habits: Rc<Habits>,
    draw: Draw,
    client: IpAddr,
    refusals: u64,
    messages: u64,
}

impl Mood {
    /// That of connection `number`, of `client`.
    pub fn new(habits: Rc<Habits>, number: u64, client: IpAddr) -> Self {
        let draw = Draw::new(mix(habits.seed, number));
        Mood { habits, draw, client, refusals: 0, messages: 0 }
    }

    /// True if the client gets what it asks for, at once.
    pub fn is_calm(&self) -> bool {
        self.habits.calm
    }

    /// How the handshake of its TLS goes wrong, if it does.
    pub fn flaw(&mut self) -> Option<Flaw> {
        let habits = Rc::clone(&self.habits);
        let mut all = habits.bad_tls.iter();
        all.find(|bad| self.draw.hits(bad.share)).map(|bad| bad.flaw)
    }

    /// What to do about a connection; `turned_away` is what the limits say.
    pub fn connected(&mut self, turned_away: Option<Reason>) -> Act {
        self.act(Step::Connect, "", turned_away)
    }

    /// What to do about a command; `sender` is that of the open transaction.
    pub fn asked(&mut self, question: &Question<'_>, sender: &str) -> Act {
        match question {
            Question::Mail { .. } => {
                let worn = self.habits.messages_per_connection.is_some_and(|n| self.messages >= n);
                let limited = if worn {
                    Some(Reason::Connections)
                } else {
                    self.habits.limits.message(self.client, Instant::now())
                };
                self.messages += 1;
                let mut act = self.act(Step::Mail, "", limited);
                if worn && let Some(reply) = &mut act.refuse {
                    reply.code = 421;
                }
                act
            }
            Question::Recipient(recipient) => {
                let recipient = recipient.to_string();
                let facts = (self.client, sender, recipient.as_str());
                let limited = self.habits.limits.recipient(facts, Instant::now());
                self.act(Step::Rcpt, &recipient, limited)
            }
            Question::Data => self.act(Step::Data, "", None),
            Question::Xclient(_) | Question::Xforward(_) => Act {
                refuse: Some(Reply::new(550, EnhancedCode(5, 7, 0), "Not permitted")),
                ..Act::default()
            },
            Question::Verify(_) | Question::Turn { .. } => Act::default(),
        }
    }

    /// What to do about a message whose end was found.
    pub fn ended(&mut self) -> Act {
        self.act(Step::Dot, "", None)
    }

    /// True if the connection is to break in the middle of a message.
    pub fn breaks_body(&mut self) -> bool {
        self.breaks(|habits| &habits.drops, Step::Body)
    }

    fn act(&mut self, step: Step, recipient: &str, limited: Option<Reason>) -> Act {
        let mut act = Act { wait: self.wait(step), ..Act::default() };
        if self.breaks(|habits| &habits.drops, step) {
            act.drop = true;
            return act;
        }
        act.half = self.breaks(|habits| &habits.halves, step);
        let what = limited.map(What::Reason).or_else(|| self.rejects(step, recipient));
        if let Some(what) = what {
            self.refusals += 1;
            let facts = Facts { client: self.client, recipient, id: self.draw.number() };
            act.refuse = Some(match what {
                What::Code(code) => self.habits.persona.reply_with(code, step, facts),
                What::Reason(reason) => self.habits.persona.reply(reason, facts),
            });
        }
        act
    }

    fn wait(&mut self, step: Step) -> Duration {
        let habits = Rc::clone(&self.habits);
        let here = habits.latency.iter().filter(|latency| latency.step == step);
        let wait: Duration = here.map(|latency| latency.dist.at(self.draw.unit())).sum();
        let tarpit = habits.tarpit.filter(|_| self.refusals > 0);
        wait + tarpit.unwrap_or_default()
    }

    fn breaks(&mut self, which: fn(&Habits) -> &Vec<Break>, step: Step) -> bool {
        let habits = Rc::clone(&self.habits);
        let mut here = which(&habits).iter().filter(|one| one.step == step);
        here.any(|one| self.draw.hits(one.share))
    }

    /// What a command is refused with, if it is.
    fn rejects(&mut self, step: Step, recipient: &str) -> Option<What> {
        let habits = Rc::clone(&self.habits);
        let mut here =
            habits.rejects.iter().filter(|it| it.step == step && it.whom.meets(recipient));
        let found = here.find(|reject| match reject.sticks() {
            true => Draw::new(mix(habits.seed, hash(recipient, reject.what))).hits(reject.share),
            false => self.draw.hits(reject.share),
        });
        found.map(|reject| reject.what)
    }
}

fn mix(seed: u64, number: u64) -> u64 {
    Draw::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).number()
}

/// Of a recipient and what it may meet: each chance is to meet others than the last.
fn hash(recipient: &str, what: What) -> u64 {
    let mut hasher = DefaultHasher::new();
    recipient.to_ascii_lowercase().hash(&mut hasher);
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use ringpost::proto::address::Address;
    use ringpost::proto::smtp::asks::Asks;

    fn habits(arguments: &str) -> Rc<Habits> {
        let given = std::iter::once("ringpost-sink").chain(arguments.split_whitespace());
        let options = Options::parse_from(given);
        let limits = Arc::new(Limits::new(options.bounds()));
        Rc::new(Habits::new(&options, options.seed.unwrap_or(1), limits))
    }

    fn mood(habits: &Rc<Habits>, number: u64) -> Mood {
        Mood::new(Rc::clone(habits), number, IpAddr::from([192, 0, 2, 1]))
    }

    fn to(recipient: &str) -> Question<'_> {
        Question::Recipient(Address::parse(recipient).unwrap())
    }

    #[test]
    fn the_same_seed_makes_the_same_session_whatever_others_do() {
        let lived = |seed: u64, others: u64| {
            let habits = habits(&format!(
                "--seed {seed} --latency rcpt:exp:5ms --reject 450:30% --drop 5% --half-reply 5%:mail"
            ));
            for other in 0..others {
                mood(&habits, 100 + other).asked(&to("x@example.org"), "");
            }
            let mut mood = mood(&habits, 7);
            (0..50).map(|_| mood.asked(&to("a@example.org"), "")).collect::<Vec<Act>>()
        };
        assert_eq!(lived(3, 0), lived(3, 9));
        assert_ne!(lived(3, 0), lived(4, 0));
        let some = lived(3, 0);
        assert!(some.iter().any(|act| act.refuse.is_some()) && some.iter().any(|act| act.drop));
        assert!(some.iter().all(|act| act.wait > Duration::ZERO));
    }

    #[test]
    fn unknown_users_stay_unknown() {
        let habits = habits("--reject unknown-user:30%");
        let refused = |number, recipient: &str| {
            mood(&habits, number).asked(&to(recipient), "").refuse.is_some()
        };
        let unknown = (0..200).filter(|user| {
            let recipient = format!("u{user}@example.org");
            let first = refused(1, &recipient);
            assert!((2..6).all(|number| refused(number, &recipient) == first));
            first
        });
        assert!((30..90).contains(&unknown.count()));
    }

    #[test]
    fn a_mailbox_is_full_whatever_chance_made_others_unknown() {
        let habits = habits("--reject unknown-user:40% --reject mailbox-full:40%");
        let mut codes = [0; 2];
        for user in 0..200 {
            let act = mood(&habits, 1).asked(&to(&format!("u{user}@example.org")), "");
            match act.refuse.map(|reply| reply.code) {
                Some(550) => codes[0] += 1,
                Some(_) => codes[1] += 1,
                None => {}
            }
        }
        // 80 and, of the 120 that are left, 48.
        assert!((50..110).contains(&codes[0]) && (25..75).contains(&codes[1]), "{codes:?}");
    }

    #[test]
    fn a_tarpit_waits_for_those_that_were_refused() {
        let habits = habits("--tarpit 2s --reject 550:1:rcpt:bad@example.org");
        let mut mood = mood(&habits, 1);
        assert_eq!(mood.asked(&to("good@example.org"), "").wait, Duration::ZERO);
        assert!(mood.asked(&to("bad@example.org"), "").refuse.is_some());
        let act = mood.asked(&to("good@example.org"), "");
        assert_eq!((act.wait, act.refuse), (Duration::from_secs(2), None));
    }

    #[test]
    fn a_connection_wears_out_and_limits_speak_in_the_words_of_the_persona() {
        let mail = Question::Mail {
            sender: None,
            size: None,
            body: ringpost::base::BodyType::SevenBit,
            smtputf8: false,
            asks: Asks::default(),
        };
        let habits_ =
            habits("--messages-per-connection 2 --persona strict --rate-per-client 100/s");
        let mut worn = mood(&habits_, 1);
        let codes: Vec<Option<u16>> =
            (0..3).map(|_| worn.asked(&mail, "").refuse.map(|reply| reply.code)).collect();
        assert_eq!(codes, [None, None, Some(421)]);
        assert!(!worn.is_calm() && mood(&habits(""), 1).is_calm());
        let act = mood(&habits_, 2).connected(Some(Reason::Connections));
        assert!(act.refuse.unwrap().text.contains("192.0.2.1"));
    }
}
