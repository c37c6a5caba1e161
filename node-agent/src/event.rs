//! Events of a run, as the launcher and the coordinator record them.

use std::collections::BTreeMap;

use aifb_schema::run::Event;

use crate::clock;

/// An event that happens now, without further values.
pub(crate) fn now(node: &str, kind: &str, subject: &str, message: &str) -> Event {
    Event {
        epoch_ns: clock::epoch_ns(),
        mono_ns: clock::mono_ns(),
        node: node.to_owned(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        message: message.to_owned(),
        fields: BTreeMap::new(),
    }
}
