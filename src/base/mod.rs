//! Layer 0: the words every other layer speaks. Ids, time as a value, the
//! envelope, delivery outcomes, protocol limits, checksums and counters.
//! Nothing here does I/O, reads a clock or knows about configuration.

pub mod checksum;
pub mod clock;
pub mod counters;
pub mod dsn;
pub mod durability;
pub mod envelope;
pub mod id;
pub mod limits;
pub mod mechanism;
pub mod memory;
pub mod outcome;
pub mod scram;
pub mod terms;
pub mod users;
pub mod xtext;

pub use clock::UnixMillis;
pub use durability::Durability;
pub use envelope::{BodyType, Envelope, Mail, Protocol};
pub use id::{Location, Place, QueueId, ShardId};
pub use mechanism::{Mechanism, Mechanisms};
pub use memory::{Memory, Share};
pub use outcome::{Disposition, EnhancedCode, Outcome, Reply, Security};
pub use terms::Terms;
