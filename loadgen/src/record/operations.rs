//! Sums by operation, kept beside those of the whole load.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::row::{Outcome, Row};
use crate::fault::Class;

/// Sums over the measured requests of one operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OperationTally {
    /// Sent.
    pub(crate) sent: u64,
    /// Answered as they should be.
    pub(crate) ok: u64,
    /// Answered with an error, or not at all.
    pub(crate) failed: u64,
    /// Ended by us.
    pub(crate) cancelled: u64,
    /// Failures by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<Class, u64>,
    /// Things that successful requests did; absent where none of them says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) items: Option<u64>,
    /// Bytes of user data that successful requests moved; absent where none of them says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload_bytes: Option<u64>,
    /// Bytes written to connections, whatever became of the request.
    pub(crate) bytes_sent: u64,
    /// Bytes read from connections, likewise.
    pub(crate) bytes_received: u64,
}

impl OperationTally {
    /// Requests that are over.
    pub(crate) fn over(&self) -> u64 {
        self.ok + self.failed + self.cancelled
    }

    fn end(&mut self, row: &Row) {
        self.bytes_sent += row.seen.bytes_sent;
        self.bytes_received += row.seen.bytes_received;
        match row.outcome {
            Outcome::Ok => {
                self.ok += 1;
                add(&mut self.items, row.seen.items);
                add(&mut self.payload_bytes, row.seen.payload_bytes);
            }
            Outcome::Failed => {
                self.failed += 1;
                if let Some(class) = row.error {
                    *self.errors.entry(class).or_default() += 1;
                }
            }
            Outcome::Cancelled => self.cancelled += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        let Self {
            sent,
            ok,
            failed,
            cancelled,
            errors,
            items,
            payload_bytes,
            bytes_sent,
            bytes_received,
        } = other;
        self.sent += sent;
        self.ok += ok;
        self.failed += failed;
        self.cancelled += cancelled;
        for (class, count) in errors {
            *self.errors.entry(*class).or_default() += count;
        }
        add(&mut self.items, *items);
        add(&mut self.payload_bytes, *payload_bytes);
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
    }
}

/// Adds what is known.
fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0) + more);
    }
}

/// The sums of each operation, in the order of their first request. A list, because a driver names
/// a handful of operations (in its code, so they are bounded) and each request looks its own up
/// twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Operations(Vec<(String, OperationTally)>);

impl Operations {
    /// Counts a measured request that is being sent.
    pub(crate) fn begin(&mut self, operation: &str) {
        self.of(operation).sent += 1;
    }

    /// Counts a measured request that is over.
    pub(crate) fn end(&mut self, row: &Row) {
        self.of(&row.operation).end(row);
    }

    /// Adds another worker's sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, tally) in &other.0 {
            self.of(name).merge(tally);
        }
    }

    /// Takes over what `other` knows to have been sent, where that is more.
    pub(crate) fn at_least_sent(&mut self, other: &Self) {
        for (name, tally) in &other.0 {
            let own = self.of(name);
            own.sent = own.sent.max(tally.sent);
        }
    }

    /// Requests sent, of all operations.
    pub(crate) fn sent(&self) -> u64 {
        self.0.iter().map(|(_, tally)| tally.sent).sum()
    }

    /// Whether nothing was counted: no request, or a checkpoint of a version that did not count.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All operations.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &OperationTally)> {
        self.0.iter().map(|(name, tally)| (name.as_str(), tally))
    }

    /// The sums of an operation, made when missing.
    fn of(&mut self, name: &str) -> &mut OperationTally {
        let found = self.0.iter().position(|(own, _)| own == name);
        let at = found.unwrap_or_else(|| {
            self.0.push((name.to_owned(), OperationTally::default()));
            self.0.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found or made above")]
        &mut self.0[at].1
    }
}

impl Serialize for Operations {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, OperationTally>::deserialize(from)?;
        Ok(Self(map.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::{Seen, tests::streamed};

    fn row(operation: &str, outcome: Outcome, items: Option<u64>) -> Row {
        let mut row = streamed();
        row.operation = operation.to_owned().into();
        row.outcome = outcome;
        row.error = (outcome == Outcome::Failed).then_some(Class::Sql);
        row.seen = Seen { items, bytes_sent: 10, ..Seen::default() };
        row
    }

    fn counted(rows: &[Row]) -> Operations {
        let mut operations = Operations::default();
        for row in rows {
            operations.begin(&row.operation);
            operations.end(row);
        }
        operations
    }

    #[test]
    fn each_operation_has_its_own_sums() {
        let operations = counted(&[
            row("select", Outcome::Ok, Some(3)),
            row("insert", Outcome::Failed, Some(9)),
            row("select", Outcome::Ok, None),
            row("insert", Outcome::Cancelled, None),
        ]);
        let found: BTreeMap<_, _> = operations.iter().collect();
        let select = found["select"];
        assert_eq!((select.sent, select.ok, select.failed, select.items), (2, 2, 0, Some(3)));
        let insert = found["insert"];
        assert_eq!((insert.sent, insert.ok, insert.failed, insert.cancelled), (2, 0, 1, 1));
        assert_eq!(insert.items, None, "items of a failed request are not done");
        assert_eq!((insert.errors[&Class::Sql], insert.bytes_sent), (1, 20));
    }

    #[test]
    fn sums_of_several_workers_add_up_and_read_back() {
        let rows = [row("a", Outcome::Ok, Some(1)), row("b", Outcome::Failed, None)];
        let mut twice = counted(&rows);
        twice.merge(&counted(&rows));
        let json = serde_json::to_string(&twice).unwrap();
        assert_eq!(serde_json::from_str::<Operations>(&json).unwrap(), twice);
        assert_eq!(twice, counted(&[rows.clone(), rows].concat()));
    }
}
